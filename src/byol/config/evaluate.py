"""The settings of `byol evaluate`."""

from dataclasses import dataclass
from typing import Literal

from byol.config.choices import InputNormalization, Precision, PresetName, Stem, at_least


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of `byol evaluate`."""

    target: str
    """Run directory, bundle, a file with a state dict (.safetensors, .pt, .pth), or a network that
    --save-networks kept, which is scored as it is."""
    data: str | None = None
    """Labelled data, as for pretrain. Default: the run's own."""
    protocol: str = "knn,logistic"
    """Comma-separated: knn, logistic, linear, online (the probe of pretrain --online-probe), finetune; or,
    of data with masks, segmentation, patch_knn."""
    labels: str = "all"
    """Labels to learn from: all, a number per class, a share (1%), or several with commas."""
    draws: int = 5
    """Random draws where not all labels are used."""
    baselines: bool = False
    """Also evaluate raw pixels (not by masks) and, of a run, the untrained network (finetune, fcn: from
    scratch)."""
    metric: Literal["top1", "mean_per_class"] = "top1"
    """What settings are chosen by and the table shows: top1, or mean_per_class (every class counts the
    same). Both are recorded."""
    transfer: bool = False
    """Logistic regression as in the paper's transfer protocol: 45 l2 values, features as they are."""
    augment: bool = False
    """Train the linear probe on random crops and flips, as the paper does, instead of cached features."""
    finetune_rates: str | None = None
    """Learning rates per 256 images that finetune tries. Default: 0.005,0.01,0.02,0.05,0.1; of segmentation's
    fcn 0.3,1."""
    finetune_epochs: str | None = None
    """Numbers of epochs that it tries, each with every rate. Default: 30,50; of segmentation's fcn 30."""
    finetune_batch_size: int | None = None
    """Images in a batch of finetune at most, where memory does not hold the default's, 1024 or fewer."""
    freeze: str | None = None
    """Sub-modules of the network that finetune leaves as they are, such as conv1,bn1,layer1."""
    heads: str | None = None
    """Heads of segmentation: linear (on frozen maps), fcn (the whole network learns). Default: both."""
    classes: str | None = None
    """Names of the classes 0, 1, ... in masks; a void number below the last has one,
    too. Default: the data's, else the numbers in train."""
    void: int | None = None
    """Number of pixels without a class in masks: not learned, not scored. Default: the data's, else 255."""
    save_networks: bool = False
    """Keep what finetune makes, each network with its classifier in a folder: networks/FEATURES-LABELS,
    -drawN with few labels. Such a folder as target is scored as it is."""
    seed: int = 0
    """Of label draws, probes and fine-tuning."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Precision | None = None
    """fp32, or bf16: the network runs so (weights and what comes out stay fp32). Faster where the processor
    has such arithmetic; vectors differ by rounding. Default: fp32; of a saved network, as it was fitted."""
    num_workers: int | None = None
    """Processes that decode images, of data that does not stay in memory. Default: as pretrain."""
    data_dir: str | None = None
    """Where downloads go. Default: where the run's went, else ./datasets."""
    report: bool = False
    """Write reports/PROTOCOL.json and .png: each class and the confusion matrix, or pictures of
    segmentations. Needs all labels."""
    plot: bool = False
    """Draw reports/labels.png: accuracy by labels, a line per protocol and features."""
    out: str | None = None
    """JSON file that gets the results of a bundle or a weights file; a run keeps its own. What else is
    written of those goes beside it: mine.json, mine-reports/, mine-splits/, mine-networks/."""
    backbone: str | None = None
    """Of a weights file: the name of its network, as for pretrain."""
    image_size: int | None = None
    """Of a weights file: side of the images in pixels. Default, here and below: as pretrain for the data."""
    channels: int | None = None
    """Of a weights file: channels of the images, 1 or 3."""
    stem: Stem | None = None
    """Of a weights file: first layers of its ResNet."""
    preset: PresetName | None = None
    """Of a weights file: augmentations of its training, which decide how images are preprocessed."""
    normalize: InputNormalization | None = None
    """Of a weights file: how its training normalised pixels, as for pretrain. Default: imagenet."""
    logger: Literal["none", "mlflow"] = "none"
    """mlflow: record the results as a run nested under the pretraining run's."""
    tracking_uri: str | None = None
    """MLflow server or store. Default: where the pretraining run was recorded, else MLFLOW_TRACKING_URI."""
    experiment: str = "byol"
    """MLflow experiment where there is no pretraining run to nest under."""
    debug: bool = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        at_least(self, 1, "draws", "finetune_batch_size", "image_size", "channels")
        at_least(self, 0, "seed", "num_workers", "void")
