"""`BYOLTrainer` in one process: against the loop written out, stopped and continued, and badly used."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset, get_worker_info

import byol
from byol.bundle import load_exactly, read_weights
from byol.training.accelerator_options import AcceleratorOptions
from byol.training.errors import NonFiniteError
from tests.host_reads import HostReads
from tests.training.conftest import Recorded

MakeNet = Callable[[], nn.Sequential]
MakeData = Callable[..., Recorded]
HEADS = {"projection_size": 5, "projection_hidden_size": 12}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


@pytest.fixture
def make_trainer(make_net: MakeNet) -> Callable[..., byol.BYOLTrainer]:
    """Return a function that makes a trainer of the tiny network, from the same seed unless told."""

    def make(net: nn.Module | None = None, seed: int = 5, **arguments: Any) -> byol.BYOLTrainer:
        torch.manual_seed(seed)
        heads = {**HEADS, **arguments.pop("byol_kwargs", {})}
        defaults: dict[str, Any] = {"image_size": 8, "hidden_layer": -2, "learning_rate": 0.05}
        defaults |= {"dataset": byol.MockDataset(8, 21), "batch_size": 4, "num_train_steps": 4}
        return byol.BYOLTrainer(net or make_net(), byol_kwargs=heads, **{**defaults, **arguments})

    return make


MakeTrainer = Callable[..., byol.BYOLTrainer]


def same(image: Tensor) -> Tensor:
    """Leave images as they are: what happens then does not depend on chance."""
    return image


def plain_learner(net: nn.Module) -> byol.BYOL:
    """Return the learner that a trainer of `make_trainer` has at its start."""
    torch.manual_seed(5)
    return byol.BYOL(net, 8, -2, augment_fn=same, **HEADS)


def assert_close(first: nn.Module, second: nn.Module) -> None:
    states = first.state_dict(), second.state_dict()
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-9, atol=1e-12, msg=name)


def assert_equal(first: nn.Module, second: nn.Module) -> None:
    states = first.state_dict(), second.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_steps_are_those_of_the_loop_written_out(
    make_trainer: MakeTrainer, make_net: MakeNet, recorded: MakeData
) -> None:
    """Zeroed before the backward pass, stepped, then averaged: the loop that the learner documents."""
    data = recorded(6, dtype=torch.float64)
    trainer = make_trainer(
        make_net().double(), dataset=data, batch_size=6, num_train_steps=3, byol_kwargs={"augment_fn": same}
    )
    trainer()
    learner = plain_learner(make_net().double())
    optimizer = torch.optim.Adam(learner.online_parameters(), lr=0.05)
    for order in torch.tensor(data.seen).view(3, 6):
        loss = learner(data.images[order])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        learner.update_moving_average()
    assert trainer.step == 3 and len(data.seen) == 18
    assert_close(trainer.byol, learner)


def test_accumulated_batches_make_one_step(
    make_trainer: MakeTrainer, make_net: MakeNet, recorded: MakeData
) -> None:
    data = recorded(8, dtype=torch.float64)
    trainer = make_trainer(
        make_net().double(),
        dataset=data,
        num_train_steps=2,
        optimizer_klass=torch.optim.SGD,  # which feels the size of a gradient, unlike Adam
        byol_kwargs={"augment_fn": same},
        accelerator_kwargs={"gradient_accumulation_steps": 2},
    )
    trainer()
    learner = plain_learner(make_net().double())
    optimizer = torch.optim.SGD(learner.online_parameters(), lr=0.05)
    for halves in torch.tensor(data.seen).view(2, 2, 4):
        optimizer.zero_grad()
        for order in halves:
            (learner(data.images[order]) / 2).backward()
        optimizer.step()
        learner.update_moving_average()
    assert trainer.step == 2
    assert_close(trainer.byol, learner)


def test_an_epoch_has_each_image_once_and_a_new_order(make_trainer: MakeTrainer, recorded: MakeData) -> None:
    """17 images in batches of 4: the last image of the order, a batch of its own, is left out."""
    data = recorded(17)
    make_trainer(dataset=data, num_train_steps=8)()
    first, second = data.seen[:16], data.seen[16:]
    assert len(second) == 16 and first != second
    assert len(set(first)) == len(set(second)) == 16
    assert first != sorted(first)


def test_only_what_the_loss_trains_is_optimized(make_trainer: MakeTrainer, make_net: MakeNet) -> None:
    net = make_net()
    before = copy.deepcopy(net)
    trainer = make_trainer(net, optimizer_klass=torch.optim.AdamW, optimizer_kwargs={"weight_decay": 0.1})
    held = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in trainer.byol.online_parameters()}
    assert trainer.optimizer.param_groups[0]["weight_decay"] == 0.1
    trainer()
    assert trainer.net is net and not torch.equal(net[0].weight, before[0].weight)
    assert torch.equal(net[-1].weight, before[-1].weight)  # behind the hidden layer


@pytest.mark.parametrize("stop", [1, 3])
def test_stopped_and_called_again_it_ends_as_if_it_had_run_through(
    stop: int, make_trainer: MakeTrainer, make_net: MakeNet
) -> None:
    class Stopping(byol.MockDataset):
        reads = 0

        def __getitem__(self, index: int) -> Tensor:
            self.reads += 1
            if self.reads == 4 * stop + 2:
                raise KeyboardInterrupt
            return torch.rand(3, 8, 8)  # by chance: a dataset's own augmentation

    class Through(byol.MockDataset):
        def __getitem__(self, index: int) -> Tensor:
            return torch.rand(3, 8, 8)

    nets = [nn.Sequential(nn.Dropout(0.2), *make_net()) for _ in range(2)]
    through, stopped = (
        make_trainer(net, dataset=data, num_train_steps=6)
        for net, data in zip(nets, (Through(8, 9), Stopping(8, 9)), strict=True)
    )
    through()
    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert stopped.step == stop
    stopped()
    assert stopped.step == 6
    assert_equal(through.byol, stopped.byol)
    stopped()  # nothing is left to do
    assert_equal(through.byol, stopped.byol)


def test_a_saved_state_goes_on_in_another_trainer(make_trainer: MakeTrainer) -> None:
    through = make_trainer(num_train_steps=6)
    through()
    make_trainer(num_train_steps=3, checkpoint_folder="stopped")()
    resumed = make_trainer(seed=77, num_train_steps=6)
    resumed.load_state_dict(torch.load("stopped/trainer.pt"))
    assert resumed.step == 3
    resumed()
    assert_equal(through.byol, resumed.byol)
    assert through.byol.target is not None and int(through.byol.target.step) == 6


def test_checkpoints_are_plain_state_dicts(make_trainer: MakeTrainer, make_net: MakeNet) -> None:
    """After every second step and after the last: what the network was after two steps, and after three."""
    two, three = (make_trainer(num_train_steps=steps, checkpoint_folder=f"to-{steps}") for steps in (2, 3))
    two()
    three.checkpoint_every = 2
    three()
    names = {file.name for file in Path("to-3").iterdir()}
    assert names == {"checkpoint.1.pt", "checkpoint.2.pt", "trainer.pt"}
    for number, trained in ((1, two.net), (2, three.net)):
        file = Path(f"to-3/checkpoint.{number}.pt")
        fresh = make_net()
        fresh.load_state_dict(torch.load(file), strict=True)
        assert_equal(fresh, trained)
        load_exactly(fresh, read_weights(file), str(file))  # as `byol evaluate FILE` does


def test_a_checkpoint_is_written_whole_or_not_at_all(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, saves = torch.save, []

    def save(state: Any, stream: Any) -> None:
        saves.append(state)
        if len(saves) == 3:
            stream.write(b"half a checkpoint")
            raise RuntimeError("unexpected pos 64 vs 0")
        original(state, stream)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(byol.UserError, match=r"cannot save checkpoints/checkpoint\.2\.pt"):
        make_trainer(checkpoint_every=1)()
    assert {file.name for file in Path("checkpoints").iterdir()} == {"checkpoint.1.pt", "trainer.pt"}
    assert torch.load("checkpoints/trainer.pt")["step"] == 1


@pytest.mark.parametrize("cause", ["image", "learning rate"])
def test_what_is_not_finite_stops_it_and_is_not_saved(cause: str, make_trainer: MakeTrainer) -> None:
    images = torch.rand(8, 3, 8, 8)
    if cause == "image":
        images[3, 0, 2, 2] = float("nan")
    trainer = make_trainer(
        dataset=TensorDataset(images),
        num_train_steps=90,
        checkpoint_every=40,
        learning_rate=1e-3 if cause == "image" else 1e30,
        optimizer_klass=torch.optim.SGD,
        byol_kwargs={"augment_fn": same},
    )
    with pytest.raises(NonFiniteError, match=r"not finite by step 30\. Lower the learning rate"):
        trainer()
    assert not Path("checkpoints").exists()


def test_steps_neither_wait_nor_print(make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]) -> None:
    """Views of one's own, since ours are drawn on the CPU, and SGD, since Adam counts there."""
    augmented = {"augment_fn": same}
    trainer = make_trainer(
        num_train_steps=150, optimizer_klass=torch.optim.SGD, learning_rate=1e-3, byol_kwargs=augmented
    )
    with HostReads() as reads:
        trainer()
    assert 0 < reads.count < 50
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert 3 <= len(lines) <= 25
    assert lines[-1].startswith("step 150/150  epoch 30.0  loss ")


@pytest.mark.parametrize(
    "data",
    [
        TensorDataset(torch.randint(0, 256, (9, 3, 12, 10), dtype=torch.uint8), torch.arange(9)),
        TensorDataset(torch.rand(9, 3, 12, 10)),
        Recorded(torch.rand(9, 3, 8, 8)),
    ],
    ids=["uint8 and labels", "tuples", "alone"],
)
@pytest.mark.parametrize("momentum", [True, False])
def test_it_takes_images_of_any_size_with_or_without_labels(
    data: Dataset[Any], momentum: bool, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer(dataset=data, num_train_steps=2, byol_kwargs={"use_momentum": momentum})
    before = copy.deepcopy(trainer.net)
    trainer()
    assert not torch.equal(trainer.net[0].weight, before[0].weight)
    assert (trainer.byol.target is None) is not momentum


def test_workers_read_the_same_images(make_trainer: MakeTrainer) -> None:
    class ForWorkers(byol.MockDataset):
        def __getitem__(self, index: int) -> Tensor:
            assert get_worker_info() is not None, "read by the process that trains"
            return super().__getitem__(index)

    alone = make_trainer(num_train_steps=2)
    helped = make_trainer(num_train_steps=2, num_workers=1, dataset=ForWorkers(8, 21))
    alone()
    helped()
    assert_equal(alone.byol, helped.byol)


def test_a_network_in_eval_mode_is_trained_all_the_same(make_trainer: MakeTrainer, make_net: MakeNet) -> None:
    trainer = make_trainer(make_net().eval())
    trainer()
    assert int(trainer.net[1].num_batches_tracked) == 8


def test_the_callers_generator_is_left_alone(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    before = torch.get_rng_state()
    trainer()
    assert torch.equal(before, torch.get_rng_state())


def test_bf16_is_for_the_networks_only(make_trainer: MakeTrainer, make_net: MakeNet) -> None:
    types: list[torch.dtype] = []
    net = make_net()
    net[0].register_forward_hook(lambda module, inputs, output: types.extend((inputs[0].dtype, output.dtype)))
    trainer = make_trainer(net, num_train_steps=1, accelerator_kwargs={"mixed_precision": "bf16"})
    types.clear()
    trainer()
    assert types == [torch.float32, torch.bfloat16] * 4  # two views, two networks
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


def test_what_accelerate_was_told_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert AcceleratorOptions.of({}) == AcceleratorOptions("no", 1, False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert AcceleratorOptions.of({}) == AcceleratorOptions("bf16", 1, True)
    assert AcceleratorOptions.of({"mixed_precision": "no"}).autocast_type is None
    monkeypatch.setenv("ACCELERATE_USE_CPU", "False")
    assert not AcceleratorOptions.of({}).cpu and AcceleratorOptions.of({"cpu": True}).cpu


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"accelerator_kwargs": {"log_with": "wandb"}},
            "unknown keyword in accelerator_kwargs 'log_with'. "
            "Known: mixed_precision, gradient_accumulation_steps, cpu.",
        ),
        ({"accelerator_kwargs": {"mixed_precision": "fp16"}}, "is 'fp16', it must be one of no, bf16"),
        ({"accelerator_kwargs": {"gradient_accumulation_steps": 0}}, "gradient_accumulation_steps is 0"),
        ({"num_train_steps": 0}, "num_train_steps is 0, it must be at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0, it must be at least 1"),
        ({"batch_size": 1}, "batch_size is 1: batch statistics need two images"),
        ({"batch_size": 22}, "has 21 images, and a step takes 22 (1 processes, 1 batches of 22)"),
        ({"dataset": byol.MockDataset(8, 0)}, "MockDataset holds no images"),
        ({"dataset": iter([])}, "has no length or no items"),
        ({"hidden_layer": "avgpol"}, "the network has no layer 'avgpol'"),
    ],
)
def test_arguments_that_make_no_sense(
    arguments: dict[str, Any], message: str, make_trainer: MakeTrainer
) -> None:
    with pytest.raises(byol.UserError) as caught:
        make_trainer(**arguments)
    assert message in str(caught.value)
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([Image.new("RGB", (8, 8))] * 4, "samples hold a Image: they must be"),
        ([torch.rand(3, 8, 8), torch.rand(3, 8, 9)] * 2, "hold [3, 8, 8] and [3, 8, 9]: they must be"),
        ([torch.rand(8, 8)] * 4, "samples hold [8, 8]: they must be image tensors [C,H,W]"),
        ([{"image": torch.rand(3, 8, 8)}] * 4, "samples hold a dict: they must be"),
    ],
)
def test_samples_that_are_no_images(samples: list[Any], message: str, make_trainer: MakeTrainer) -> None:
    with pytest.raises(byol.UserError) as caught:
        make_trainer(dataset=samples)()
    assert message in str(caught.value)


def test_mock_images_are_always_the_same() -> None:
    data = byol.MockDataset(6, 3)
    images = list(data)
    assert len(data) == len(images) == 3
    assert images[0].shape == (3, 6, 6) and images[0].dtype == torch.float32
    assert torch.equal(images[1], byol.MockDataset(6, 9)[1])
    assert not torch.equal(images[1], images[2])
    assert min(map(torch.min, images)) >= 0 and max(map(torch.max, images)) <= 1
