"""What half fine-tuning is measured on: stages of fine-tuning, one step, inference, a quadratic."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from harness.errors import BadOutput
from harness.method import Measurement, Metric, Series, Task, task
from harness.seeding import derive, rng, torch_generator
from harness.types import NonNegativeFloat, PositiveFloat, PositiveInt
from methods.common.language_model import Precision, corpus, split
from methods.finetuning.half_fine_tuning import intents, texts
from methods.finetuning.half_fine_tuning.fields import HostRecipe, LlamaShape, PretrainedText
from methods.finetuning.half_fine_tuning.single import (
    InferenceOutput,
    InferenceWork,
    QuadraticWork,
    StepOutput,
    StepWork,
)
from methods.finetuning.half_fine_tuning.stages import Host, Stages, load_into


@task(
    "continual-stages",
    repeats="once",
    data=("gutenberg-novels", "java-cs-translation"),
    metrics=(
        Metric("base_before", "bits/byte", "lower", "Base text before the first stage."),
        Metric("base_after", "bits/byte", "lower", "Base text after the last stage."),
        Metric("forgetting", "bits/byte", "lower", "Rise on the base text over all stages."),
        Metric("backward_transfer", "bits/byte", "lower", "Mean rise since a text was last learnt."),
        Metric("new_before", "bits/byte", "lower", "Mean over the new texts before the first stage."),
        Metric("new_after", "bits/byte", "lower", "Mean over the new texts after the last stage."),
        Metric("new_task_fit", "bits/byte", "lower", "Mean over the new texts, each after its stage."),
        Metric("final_average", "bits/byte", "lower", "Mean over all texts after the last stage."),
        Metric("first_base", "bits/byte", "lower", "Base text after the first stage."),
        Metric("first_new", "bits/byte", "lower", "First new text after the first stage."),
        Metric("first_new_before", "bits/byte", "lower", "First new text before the first stage."),
        Metric("trainable_share", "", "neither", "Parameters that moved in a stage, mean."),
        Metric("optimizer_bytes", "B", "lower", "What the optimizer keeps in a stage, mean."),
    ),
)
class ContinualStages(HostRecipe, PretrainedText, Task[texts.TextWork, Stages]):
    """Fine-tune a pretrained language model on one text after another, and see what it forgets.

    a(i, j) is bits per byte on the held-out part of text j (0: the base text) after stage i, by lm-eval.
    Forgetting is a(n, 0) - a(0, 0); backward transfer is the mean over j < n of a(n, j) - a(j, j).
    """

    stage_texts: tuple[str, ...] = (
        "java-cs-translation/train.jsonl.gz#java",
        "gutenberg-novels/tinyshakespeare.txt.gz",
        "python-stdlib",
    )
    """One stage each, in this order."""

    def load(self, seed: int) -> texts.TextWork:
        if not self.stage_texts:
            raise ValueError("stage_texts: there is at least one stage")
        model = self.model()
        _, known = self.parts(self.base_text, None)
        new = [self.parts(name, self.cap) for name in self.stage_texts]
        return texts.TextWork(
            model,
            self.host(),
            texts.text_stages([model.tokens(text) for text, _ in new], self.batch, self.context),
            [known, *(document for _, document in new)],
        )

    def score(self, work: texts.TextWork, output: Stages) -> Measurement:
        stages = len(work.stages)
        _check_snapshots(output, stages)
        a = [work.bits_per_byte(state) for state in output.snapshots]
        first, last = a[0], a[-1]
        return Measurement(
            {
                "base_before": first[0],
                "base_after": last[0],
                "forgetting": last[0] - first[0],
                "backward_transfer": sum(last[j] - a[j][j] for j in range(stages)) / stages,
                "new_before": sum(first[1:]) / stages,
                "new_after": sum(last[1:]) / stages,
                "new_task_fit": sum(a[j][j] for j in range(1, stages + 1)) / stages,
                "final_average": sum(last) / (stages + 1),
                "first_base": a[1][0],
                "first_new": a[1][1],
                "first_new_before": first[1],
                **output.costs(),
            },
            {
                f"text_{j}": Series(
                    [float(i) for i in range(stages + 1)], [row[j] for row in a], "stage", "bits/byte"
                )
                for j in range(stages + 1)
            },
        )


@task(
    "preference-stage",
    repeats="once",
    data=("gutenberg-novels",),
    metrics=(
        Metric("preference_before", "", "higher", "Preference accuracy before the stage."),
        Metric("preference_accuracy", "", "higher", "Pairs whose real continuation is the likelier."),
        Metric("base_after", "bits/byte", "lower", "Base text after the stage."),
        Metric("forgetting", "bits/byte", "lower", "Rise on the base text."),
        Metric("trainable_share", "", "neither", "Parameters that moved."),
        Metric("optimizer_bytes", "B", "lower", "What the optimizer keeps."),
    ),
)
class PreferenceOptimisation(HostRecipe, PretrainedText, Task[texts.PreferenceWork, Stages]):
    """One stage of direct preference optimisation: real continuations before shuffled ones.

    The two continuations of a prompt have the same words in different order. Byte-level models only.
    """

    pair_text: str = "gutenberg-novels/tinyshakespeare.txt.gz"
    """Where the pairs come from."""
    pairs: PositiveInt = 2000
    """To train on."""
    questions: PositiveInt = 500
    """Held-out pairs."""
    beta: PositiveFloat = 0.1
    """Strength of the pull towards the model before the stage."""

    def load(self, seed: int) -> texts.PreferenceWork:
        if self.base_model:
            raise ValueError("base_model: pairs are cut by bytes, so the model is the byte-level one")
        _, known = self.parts(self.base_text, None)
        train, held = split(corpus(self.pair_text, self.cap), self.held_out)
        length, prompt = self.context + 1, self.context // 2
        rows = texts.pairs(train, self.pairs, length, prompt, rng(seed, "pairs"))
        asked = texts.pairs(held, self.questions, length, prompt, rng(seed, "questions"))
        # The right answer alternates, so that a tie or a bias to one place is worth a half.
        questions = [
            {"query": query, "choices": [real, wrong] if i % 2 else [wrong, real], "label": 1 - i % 2}
            for i, (query, real, wrong) in enumerate(asked)
        ]
        return texts.PreferenceWork(
            self.model(),
            self.host(),
            [texts.preference_stage(rows, self.batch, self.beta)],
            [known],
            questions,
        )

    def score(self, work: texts.PreferenceWork, output: Stages) -> Measurement:
        _check_snapshots(output, 1)
        (before,), (after,) = (work.bits_per_byte(state) for state in output.snapshots)
        return Measurement(
            {
                "preference_before": work.preference_accuracy(output.snapshots[0]),
                "preference_accuracy": work.preference_accuracy(output.snapshots[1]),
                "base_after": after,
                "forgetting": after - before,
                **output.costs(),
            }
        )


@task(
    "intent-stages",
    repeats="once",
    data=("clinc150", "banking77"),
    metrics=(
        Metric("zero_shot_before", "", "higher", "Zero-shot accuracy before the first stage."),
        Metric("zero_shot_after", "", "higher", "Zero-shot accuracy after the last stage."),
        Metric("zero_shot_lost", "", "lower", "Fall of the zero-shot accuracy."),
        Metric("new_accuracy", "", "higher", "Mean over the domains, each after its stage."),
        Metric("final_accuracy", "", "higher", "Mean over the domains after the last stage."),
        Metric("trainable_share", "", "neither", "Parameters that moved in a stage, mean."),
        Metric("optimizer_bytes", "B", "lower", "What the optimizer keeps in a stage, mean."),
    ),
)
class IntentStages(HostRecipe, Task[intents.IntentWork, Stages]):
    """Fine-tune a sentence encoder on one domain of CLINC150 after another.

    One output layer has all 150 intents. What is to be kept is the encoder's similarity space: accuracy on
    BANKING77 when a query goes to the label whose name is nearest.
    """

    domains: PositiveInt = 10
    """Stages, in the data set's own order; up to 10."""
    length: PositiveInt = 24
    """Tokens of a sentence at most."""
    test_per_intent: PositiveInt = 5
    """Test sentences of each intent."""
    queries_per_label: PositiveInt = 5
    """Queries of each of BANKING77's 77 labels."""

    def load(self, seed: int) -> intents.IntentWork:
        return intents.load(
            host=self.host(),
            batch=self.batch,
            domains=self.domains,
            length=self.length,
            test_per_intent=self.test_per_intent,
            queries_per_label=self.queries_per_label,
            seed=derive(seed, "output layer"),
        )

    def score(self, work: intents.IntentWork, output: Stages) -> dict[str, float]:
        stages = len(work.stages)
        _check_snapshots(output, stages)
        start, *after_each = output.snapshots
        device = next(iter(start.values())).device
        model = work.base(None, "cpu")
        before = work.zero_shot(load_into(model, start, device))
        own = [
            work.accuracy(load_into(model, state, device), domain) for domain, state in enumerate(after_each)
        ]
        # `model` now holds the snapshot after the last stage.
        after = work.zero_shot(model)
        return {
            "zero_shot_before": before,
            "zero_shot_after": after,
            "zero_shot_lost": before - after,
            "new_accuracy": sum(own) / stages,
            "final_accuracy": sum(work.accuracy(model, domain) for domain in range(stages)) / stages,
            **output.costs(),
        }


@task(
    "fine-tuning-step",
    amount_unit="tokens",
    metrics=(
        Metric("loss", "nats", "lower", "Loss of the first step."),
        Metric("trainable_share", "", "neither", "Parameters that are trained."),
        Metric("matmul_flops", "FLOP", "lower", "Of products with weight matrices in one step."),
        Metric("optimizer_bytes", "B", "lower", "What the optimizer keeps."),
    ),
)
class FineTuningStep(LlamaShape, Task[StepWork, StepOutput]):
    """One step of fine-tuning on a fixed batch: forward, backward and update."""

    phase: Literal["forward", "forward-backward", "step"] = "step"
    """How far a run goes; differences give the split."""
    checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    precision: Precision = "float32"
    """Of forward and backward; weights, gradients and optimizer state are float32."""
    lr: PositiveFloat = 5e-5
    """Learning rate."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled, times the learning rate."""

    def load(self, seed: int) -> StepWork:
        return StepWork(
            self.shape(),
            self.tokens(seed, "batch"),
            self.phase,
            self.checkpointing,
            self.precision,
            Host(1, self.lr, self.weight_decay),
            derive(seed, "weights"),
        )

    def score(self, work: StepWork, output: StepOutput) -> dict[str, float]:
        loss = float(output.loss)
        if not math.isfinite(loss):
            raise BadOutput(f"the loss of the step is {loss}")
        flops, state_bytes = output.counted()
        return {
            "loss": loss,
            "trainable_share": output.trainable_share,
            "matmul_flops": flops,
            "optimizer_bytes": state_bytes,
        }

    def amount(self, work: StepWork) -> float:
        return float(self.batch * self.context)


@task(
    "fine-tuned-inference",
    amount_unit="tokens",
    metrics=(
        Metric("same_architecture", "", "higher", "1: names and shapes are those of the base model."),
        Metric("logits_difference", "", "lower", "Largest, to a base model given the weights."),
    ),
)
class FineTunedInference(LlamaShape, Task[InferenceWork, InferenceOutput]):
    """A forward pass of a model after some steps of fine-tuning."""

    steps: PositiveInt = 3
    """Of fine-tuning, before the clock starts."""
    lr: PositiveFloat = 1e-3
    """Learning rate of these steps."""

    def load(self, seed: int) -> InferenceWork:
        tokens = self.tokens(seed, "inference")[:, :-1]
        return InferenceWork(
            self.shape(),
            self.tokens(seed, "training"),
            tokens,
            Host(self.steps, self.lr),
            derive(seed, "weights"),
        )

    def score(self, work: InferenceWork, output: InferenceOutput) -> dict[str, float]:
        base = work.shape.fresh(work.seed)
        state = {name: tensor.cpu() for name, tensor in output.model.state_dict().items()}
        same = {n: t.shape for n, t in base.state_dict().items()} == {
            n: t.shape for n, t in state.items()
        } and [type(m) for m in base.modules()] == [type(m) for m in output.model.modules()]
        if not same:
            return {"same_architecture": 0.0, "logits_difference": math.inf}
        base.load_state_dict(state)
        base.to(output.logits.device)
        with torch.no_grad():
            logits = base(input_ids=work.tokens.to(output.logits.device), use_cache=False).logits
        difference = float((logits - output.logits).abs().max())
        return {"same_architecture": 1.0, "logits_difference": difference}

    def amount(self, work: InferenceWork) -> float:
        return float(work.tokens.numel())


@task(
    "quadratic-stage",
    metrics=(
        Metric(
            "held_shift",
            "",
            "lower",
            "Move of held entries, relative to the way to b; largest. Its value is 1 / (1 + 2 lambda).",
            deterministic=True,
        ),
        Metric("free_error", "", "lower", "What is left of the way to b elsewhere; largest."),
    ),
)
class QuadraticStage(Task[QuadraticWork, Tensor]):
    """Minimise L = 0.5 ||theta - b||^2 from theta_0 while a random half of theta's blocks is held."""

    blocks: PositiveInt = 14
    """Blocks of theta; half of them, rounded down, are held."""
    size: PositiveInt = 64
    """Entries of a block."""

    def load(self, seed: int) -> QuadraticWork:
        generator = torch_generator(seed, "quadratic")
        shape = (self.blocks, self.size)
        start = torch.randn(shape, generator=generator, dtype=torch.float64)
        # At least 1 away from the start, so that a relative shift is well defined.
        way = 1 + torch.rand(shape, generator=generator, dtype=torch.float64)
        held = torch.zeros(self.blocks, dtype=torch.bool)
        held[torch.randperm(self.blocks, generator=generator)[: self.blocks // 2]] = True
        return QuadraticWork(start, start + way, held)

    def score(self, work: QuadraticWork, output: Tensor) -> dict[str, float]:
        if output.shape != work.start.shape:
            raise BadOutput(f"theta has shape {tuple(output.shape)}, not {tuple(work.start.shape)}")
        way = work.goal - work.start
        moved = ((output.cpu() - work.start) / way).abs()
        left = ((work.goal - output.cpu()) / way).abs()
        return {
            "held_shift": float(moved[work.held].max()) if work.held.any() else 0.0,
            "free_error": float(left[~work.held].max()),
        }


def _check_snapshots(output: Stages, stages: int) -> None:
    if len(output.snapshots) != stages + 1:
        raise BadOutput(f"{stages} stages leave {stages + 1} snapshots, not {len(output.snapshots)}")
