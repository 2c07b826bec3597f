"""The settings of `byol pretrain`."""

from dataclasses import dataclass
from typing import Any, Literal

from byol.config.choices import (
    InputNormalization,
    Normalization,
    Optimizer,
    Precision,
    PresetName,
    Stem,
    TargetStatistics,
    at_least,
    logger_names,
)
from byol.errors import UserError
from byol.methods import Method, refuse_foreign_settings


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Settings of `byol pretrain`."""

    data: str = "digits"
    """Name of a data set (digits, cifar10, cifar100, stl10, fashion_mnist, emnist/...), folder:PATH,
    hf:NAME_OR_PATH, or a path."""
    out: str | None = None
    """Run directory, which must not exist. Default: the next free runs/DATA-METHOD-N."""
    method: Method = "byol"
    """byol; simsiam: no target network; pixpro: dense features, for segmentation and detection;
    pixcontrast: the same by contrast with the other places of the map."""
    backbone: str = "resnet18"
    """Any timm name, or a small ResNet: resnet8_16, resnet8_24, resnet8_32, resnet8_64, ..."""
    backbone_weights: str | None = None
    """Weights to start from: a file with a state dict (.safetensors, .pt, .pth), or timm for its own
    pretrained ones. Default: random."""
    normalize: InputNormalization | dict[str, Any] | None = None
    """Mean and standard deviation by which pixels are normalised: imagenet; timm = those that timm's weights
    for the network were trained with; none leaves them in [0,1]. Default: timm with --backbone-weights
    timm, else imagenet. In YAML also values of your own: {mean: [0.5], std: [0.25]}, one a channel."""
    stem: Stem | None = None
    """First layers of a ResNet: small = 3x3 stride 1, strided = 3x3 stride 2, standard = 7x7 stride 2
    and max-pool. Default: small below 112 pixels, else standard (resnet8_16 and its like: strided)."""
    normalization: Normalization = "batch"
    """batch = as published; group = no batch statistics anywhere: group norms and standardised weights in
    place of batch norms, in the heads too."""
    projection_size: int | None = None
    """Width of the projections. Default: 256, simsiam 2048."""
    projection_hidden_size: int | None = None
    """Hidden width of projector and predictor. Default: 4096, simsiam 2048."""
    image_size: int | None = None
    """Side in pixels of the images that the backbone is for. Default: the images' own where all are square
    and alike, at most 128, else 224."""
    view_size: int | None = None
    """Side of the views in pixels. Default: image-size. Steps on smaller ones take less time."""
    channels: int | None = None
    """Channels of the images, 1 or 3. Default: the data's."""
    preset: PresetName | dict[str, Any] | None = None
    """Augmentations; official is imagenet with the operations of BYOL's own code, pixpro with bilinear crops.
    Default, for an image-size up to 96 and above: small and imagenet; of simsiam simsiam-small and simsiam;
    of pixpro and pixcontrast small and pixpro. byol and simsiam take glyph for digits and EMNIST. In YAML
    also views of your own, in names and values."""
    crop_scale: float | None = None
    """Smallest area of a random crop over the area of the image. Default: the preset's (0.08, of
    simsiam 0.2)."""
    batch_size: int = 256
    """Images per optimizer step, over all processes and accumulated micro-batches."""
    accumulate: int = 1
    """Micro-batches per optimizer step. Batch statistics are those of a micro-batch."""
    epochs: str = "100"
    """Length of training: 100 or 100ep epochs, 500st optimizer steps."""
    warmup: str | None = None
    """Linear warm-up: epochs, steps (500st) or a share of the run (5%). Default: 10 epochs (pixpro and
    pixcontrast 5), at most a quarter of the run; simsiam none."""
    warmup_start: float = 0.0
    """Learning rate of the first step of the warm-up, as a share of the peak."""
    optimizer: Optimizer | None = None
    """lars as published, adamw, or sgd with momentum 0.9. Default: lars, simsiam sgd."""
    base_lr: float | None = None
    """Learning rate per 256 images: lr = base-lr x batch-size / 256. Default: lars as published for
    this number of epochs (pixpro and pixcontrast 1), adamw 0.002, sgd 0.05."""
    final_lr: float = 0.0
    """Learning rate at the end of the run, whatever the batch."""
    weight_decay: float | None = None
    """On all weights but biases and norms (simsiam: on all). Default: lars as published (pixpro and
    pixcontrast 0.00001), adamw 0.0001, sgd 0.0001."""
    tau: float | None = None
    """Decay rate of the target at the first step; it rises to 1 along a cosine. Default: as published
    for this number of epochs; pixpro and pixcontrast 0.99. simsiam has no target, and
    ignores it."""
    target_statistics: TargetStatistics = "own"
    """Batch normalisation of the target: own = each batch's statistics, as published; copy, average =
    the online network's running statistics, copied or averaged with tau (EMAN). byol alone has it."""
    gather_projections: bool = False
    """Compute the loss from all processes' projections together; gradients stay the same. Not with pixpro
    and pixcontrast."""
    feature_layer: str | None = None
    """pixpro and pixcontrast: the layer whose feature map is compared. Default: the last one that has a
    map."""
    positive_distance: float = 0.7
    """pixpro and pixcontrast: places of two views are the same below this distance in the image, in
    diagonals of the larger cell."""
    propagation_layers: int = 1
    """pixpro: layers that transform the values which pixel propagation averages, 0 to 2."""
    propagation_gamma: float = 2.0
    """pixpro: exponent, at least 1, of the similarity by which it weighs them."""
    pixel_temperature: float = 0.3
    """pixcontrast: temperature of the similarities."""
    instance_weight: float = 0.0
    """pixpro and pixcontrast: weight of BYOL's loss of whole images beside that of places; 0: without."""
    holdout: float | None = None
    """Share of the train split kept out of pretraining, or a number of images. Default: 0.1 where there are
    labels or masks to measure by, else none."""
    knn_every: str | None = None
    """How often kNN on the hold-out is measured: epochs, steps or a share of the run; 0 = never. Default: 10%
    or, in short runs, more rarely or never, so that most of the time goes into training."""
    online_probe: bool = False
    """Train a linear classifier on representations of the views beside the learner, which learns nothing of
    it; its accuracy on the hold-out is measured with kNN. Needs labels."""
    log_every: str = "20st"
    """How often metrics are written: steps, epochs or a share of the run, above 0."""
    checkpoint_every: str = "10%"
    """How often a checkpoint is saved (and hourly): epochs, steps or a share of the run; 0 = in the end."""
    backbone_every: str = "0"
    """How often the backbone is kept in a folder of its own, checkpoints/backbone-STEP: epochs, steps or
    a share of the run; 0 = never. The last one is model/."""
    logger: str = "tensorboard"
    """Where metrics go beside metrics.jsonl: tensorboard, mlflow, wandb, several with commas, or none."""
    logger_on_error: Literal["stop", "warn"] = "stop"
    """What to do where MLflow or W&B fails or cannot be reached: stop, or warn and go on without it."""
    tracking_uri: str | None = None
    """MLflow server or store. Default: MLFLOW_TRACKING_URI, else a store in the run directory."""
    experiment: str = "byol"
    """MLflow experiment, or W&B project."""
    run_name: str | None = None
    """Name of the run in MLflow or W&B. Default: that of the run directory."""
    seed: int = 0
    """Of weights, order and views."""
    devices: str = "auto"
    """Processes on this machine: a number, or auto: as many as torchrun or srun started, else one a GPU,
    else one."""
    nodes: int = 1
    """Machines; torchrun or srun starts the processes on each, and this need not be given."""
    precision: Precision = "fp32"
    """fp32, or bf16 (mixed: weights and statistics stay fp32), for GPUs and processors that compute in it."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto is off on a CPU, where a compiler, Triton or Python's header files are missing, and
    for networks whose batch statistics are synchronised between GPUs."""
    in_memory: Literal["auto", "on", "off"] = "auto"
    """Hold all images on the training device; auto: those of one size, at most 256 pixels a side, that take
    no more than a quarter of a GPU's memory, on a CPU 2 GiB. Other images are streamed."""
    num_workers: int | None = None
    """Processes that decode images for each one that trains, of data that does not stay in memory.
    Default: one less than its share of the cores, at most 16."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do about an unreadable image: stop, or leave it out and report it."""
    data_dir: str = "./datasets"
    """Where downloads go."""
    debug: bool = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        at_least(self, 1, "batch_size", "accumulate", "nodes", "image_size", "view_size", "channels")
        at_least(self, 1, "projection_size", "projection_hidden_size")
        at_least(self, 0, "base_lr", "final_lr", "weight_decay", "num_workers", "holdout", "seed")
        if not 0 <= self.warmup_start <= 1:
            raise UserError(f"warmup_start is {self.warmup_start}, it must lie between 0 and 1")
        if self.tau is not None and not 0 <= self.tau <= 1:
            raise UserError(f"tau is {self.tau}, it must lie between 0 and 1")
        if self.crop_scale is not None and not 0 < self.crop_scale <= 1:
            raise UserError(f"crop_scale is {self.crop_scale}, it must lie between 0 and 1")
        if self.devices != "auto" and not (self.devices.isdigit() and int(self.devices) > 0):
            raise UserError(f"devices is '{self.devices}', it must be a number or auto")
        logger_names(self.logger)
        _check_pixel_settings(self)
        refuse_foreign_settings(self)


def _check_pixel_settings(config: PretrainConfig) -> None:
    """Raise UserError where a setting of the pixel methods is out of its range."""
    at_least(config, 0, "instance_weight")
    at_least(config, 1, "propagation_gamma")
    for name in ("positive_distance", "pixel_temperature"):
        if not getattr(config, name) > 0:
            raise UserError(f"{name} is {getattr(config, name)}, it must be above 0")
    if config.propagation_layers not in (0, 1, 2):
        raise UserError(f"propagation_layers is {config.propagation_layers}, it must be 0, 1 or 2")
