from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from byol.errors import UserError
from byol.evaluation.linear import (
    batch_size_for,
    clean_training,
    fit_heads,
    full_batches,
    linear,
)
from byol.evaluation.problem import Problem, accuracy


def digits_problem() -> Problem:
    images, labels = load_digits(return_X_y=True)
    vectors, targets = torch.from_numpy(images).float() / 16, torch.from_numpy(labels)
    fit, choice = torch.arange(1000), torch.arange(1000, 1200)
    return Problem(vectors[:1200], targets[:1200], fit, choice, vectors[1200:], 10)


def test_all_rates_at_once_equal_one_at_a_time() -> None:
    problem = digits_problem()
    count, epochs, rates = 200, 3, (3.0, 0.4, 0.05)
    batches = clean_training(problem, 5, "cpu")(torch.arange(count))
    heads = fit_heads(batches, count, (10, 64), rates, epochs)
    for index, rate in enumerate(rates):
        layer = nn.Linear(64, 10)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        size = batch_size_for(count)
        optimizer = torch.optim.SGD(layer.parameters(), lr=rate * size / 256, momentum=0.9, nesterov=True)
        steps = epochs * -(-count // size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for epoch in range(epochs):
            for rows in full_batches(count, 5, epoch):
                loss = F.cross_entropy(layer(problem.vectors[rows]), problem.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        torch.testing.assert_close(heads.weight[index], layer.weight.detach(), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(heads.bias[index], layer.bias.detach(), atol=1e-4, rtol=1e-3)


def test_learns_digits_and_repeats_whatever_the_global_state() -> None:
    problem = digits_problem()
    truth = torch.from_numpy(load_digits().target[1200:])
    torch.manual_seed(1)
    first = linear(problem, epochs=20)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = linear(problem, epochs=20)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.scores, second.scores)
    assert accuracy(first.scores, truth) > 0.88
    assert set(first.settings) == {"lr", "epochs", "batch_size"}


def test_scale_of_the_features_is_met_by_the_choice_of_rate() -> None:
    problem = digits_problem()
    truth = torch.from_numpy(load_digits().target[1200:])
    for scale in (0.1, 8.0):
        scaled = replace(problem, vectors=problem.vectors * scale, queries=problem.queries * scale)
        assert accuracy(linear(scaled, epochs=20).scores, truth) > 0.85


def test_the_rate_is_the_best_by_the_metric() -> None:
    """A metric that praises mistakes chooses the rate with the most of them."""
    problem, rates = digits_problem(), (0.4, 0.001)
    chosen = linear(problem, epochs=2, rates=rates).settings["lr"]
    contrary = replace(problem, metric=lambda scores, labels: 1 - accuracy(scores, labels))
    assert (chosen, linear(contrary, epochs=2, rates=rates).settings["lr"]) == rates


def test_last_epoch_with_the_chosen_rate_on_everything() -> None:
    problem = digits_problem()
    outcome = linear(problem, epochs=4, rates=(0.4, 0.1))
    batches = clean_training(problem, 0, "cpu")(torch.arange(1200))
    heads = fit_heads(batches, 1200, (10, 64), [outcome.settings["lr"]], 4)
    torch.testing.assert_close(outcome.scores, next(heads.scores(problem.queries)))


def test_nothing_to_choose_on_is_told() -> None:
    with pytest.raises(
        UserError, match="1200 labelled images are too few to keep some for choosing settings"
    ):
        linear(replace(digits_problem(), choice=torch.arange(0)), epochs=1)


@pytest.mark.parametrize(("count", "size"), [(1, 1), (1600, 100), (50_000, 1024)])
def test_batch_size(count: int, size: int) -> None:
    assert batch_size_for(count) == size


def test_an_epoch_holds_every_image_once() -> None:
    first, second = (torch.cat(list(full_batches(100, 0, epoch))) for epoch in (0, 1))
    assert torch.equal(first.sort().values, torch.arange(100))
    assert not torch.equal(first, second)
