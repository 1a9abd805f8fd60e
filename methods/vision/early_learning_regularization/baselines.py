"""What early-learning regularization is compared with, on the same batches from the same first weights."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from harness.method import method
from harness.types import Fraction
from methods.vision.early_learning_regularization.targets import TABLE_METRICS, TargetTraining, clipped_softmax
from methods.vision.early_learning_regularization.training import Training
from methods.vision.noisy_labels import NoisyLabels, predict, share


@method("cross-entropy", task=("noisy-label-classification", "two-gaussians-noisy-labels"))
class CrossEntropy(Training):
    """Plain training, which takes every label at its word."""

    def loss(self, logits: Tensor, given: Tensor, index: Tensor) -> Tensor:
        return F.cross_entropy(logits, given)


@method("label-smoothing", task=("noisy-label-classification", "two-gaussians-noisy-labels"))
class LabelSmoothing(Training):
    """Cross-entropy with part of each label spread over all classes (Szegedy et al. 2016)."""

    smoothing: Fraction = 0.1
    """The part that is spread."""

    def loss(self, logits: Tensor, given: Tensor, index: Tensor) -> Tensor:
        return F.cross_entropy(logits, given, label_smoothing=self.smoothing)


@method("early-stopping", task="noisy-label-classification")
class EarlyStopping(CrossEntropy):
    """Cross-entropy training that keeps the network which predicts most of the noisy validation labels.

    It looks at the epochs that the task watches, and goes through all of them. Of equally good networks it
    keeps the first.
    """

    def prepare(self, work: NoisyLabels) -> None:
        if not len(work.validation):
            raise ValueError("early stopping needs a validation set: set validation above 0")
        super().prepare(work)
        self.validation = work.validation.to(self.context.device)

    def start(self) -> None:
        self.accuracies: list[float] = []

    def look(self) -> None:
        answer = predict(self.network, self.validation)
        self.accuracies.append(share(answer == self.work.validation_given))

    def choice(self) -> int:
        return self.accuracies.index(max(self.accuracies))


@method(
    "static-target",
    task=("noisy-label-classification", "two-gaussians-noisy-labels"),
    metrics=TABLE_METRICS,
)
class StaticTarget(TargetTraining):
    """Cross-entropy towards a mixture of the given label and the running target.

    The same table as in early-learning regularization, but the form of its loss is replaced by the one of
    bootstrapping: the gradient towards a wrong label gets smaller and is never cancelled.
    """

    beta: Fraction = 0.7
    """Momentum of the running targets."""

    weight: Fraction = 0.5
    """Share of the running target in the mixture; 0 is plain cross-entropy."""

    def start(self) -> None:
        self.reset(self.beta)

    def loss(self, logits: Tensor, given: Tensor, index: Tensor) -> Tensor:
        targets = self.targets.update(index, clipped_softmax(logits))
        towards = (targets * F.log_softmax(logits, dim=1)).sum(1).mean()
        return (1 - self.weight) * F.cross_entropy(logits, given) - self.weight * towards
