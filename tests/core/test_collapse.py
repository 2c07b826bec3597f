"""What keeps SimSiam from collapsing is the stop-gradient (arXiv 2011.10566, section 4.1)."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from byol.core.learner import BYOL


def train_simsiam(images: Tensor, stop_gradient: bool) -> tuple[float, float]:
    """Return the last loss and the effective rank of all projections."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32))
    learner = BYOL(net, 8, None, 32, 64, use_momentum=False, channels=1)
    optimizer = torch.optim.SGD(learner.online_parameters(), lr=0.3, momentum=0.9)
    for _ in range(600):
        batch = images[torch.randint(len(images), (128,))]
        views = [batch + 0.2 * torch.randn_like(batch) for _ in range(2)]
        loss = learner(*views) if stop_gradient else loss_with_gradient_to_both_sides(learner, *views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        projections = F.normalize(learner.online(images))
    values = torch.linalg.svdvals(projections - projections.mean(0))
    shares = values / values.sum()
    return loss.item(), float(torch.exp(-(shares * shares.log()).sum()))


def loss_with_gradient_to_both_sides(learner: BYOL, view1: Tensor, view2: Tensor) -> Tensor:
    z1, z2 = learner.online(view1), learner.online(view2)
    p1, p2 = learner.predictor(z1), learner.predictor(z2)
    return -(F.cosine_similarity(p1, z2).mean() + F.cosine_similarity(p2, z1).mean()) / 2


def test_simsiam_collapses_without_its_stop_gradient_only() -> None:
    """Its output's batch norm keeps every dimension's spread: collapse shows in how few there are."""
    images = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small that threads only wait for each other
    try:
        loss, rank = train_simsiam(images, stop_gradient=True)
        degenerate_loss, degenerate_rank = train_simsiam(images, stop_gradient=False)
    finally:
        torch.set_num_threads(threads)
    assert rank > 6
    assert degenerate_rank < rank / 2
    assert degenerate_loss == pytest.approx(-1, abs=0.04) and degenerate_loss < loss
