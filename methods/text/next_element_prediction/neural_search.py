"""The authors' search over recurrent networks: draws of a tree-structured Parzen estimator, by Optuna."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from methods.text.next_element_prediction.neural import Recipe, Trained, train
from methods.text.next_element_prediction.sequences import Sequences

if TYPE_CHECKING:
    from optuna import Trial


def suggested(trial: Trial, base: Recipe) -> Recipe:
    """A recipe from the authors' space: layers, units, dropout, penalties, batch and learning rate."""
    return replace(
        base,
        layers=trial.suggest_int("layers", 1, 3),
        units=trial.suggest_int("units", 10, 150, log=True),
        dropout=trial.suggest_float("dropout", 0.0, 0.5),
        l1=trial.suggest_float("l1", 1e-5, 1e-1, log=True),
        l2=trial.suggest_float("l2", 1e-5, 1e-1, log=True),
        batch=trial.suggest_int("batch", 8, 64),
        learning_rate=trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
    )


def search(work: Sequences, base: Recipe, draws: int, *, seed: int, device: str) -> tuple[Recipe, Trained]:
    """The recipe with the least validation score of `draws`, and its training on the fitting traces.

    Args:
        work: whose fitting and validation traces are used.
        base: what is not searched: cell, inputs, epochs, patience.
        draws: how many recipes are tried.
        seed: of the draws and of every training.
        device: where the networks are trained.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found: list[tuple[Recipe, Trained]] = []

    def objective(trial: Trial) -> float:
        recipe = suggested(trial, base)
        trained = train(
            work.fitting, work.symbols, recipe, seed=seed, device=device, validation=work.validation
        )
        found.append((recipe, trained))
        return trained.best

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed % 2**32))
    study.optimize(objective, n_trials=draws)
    return min(found, key=lambda pair: pair[1].best)
