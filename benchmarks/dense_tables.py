"""The table of dense features."""

from typing import Any

from tables import percent, table

FEATURES = {
    "random-init": "untrained (fine-tuned: from scratch)",
    "byol": "BYOL",
    "pixpro": "PixPro",
    "pixpro+instance": "PixPro, BYOL beside it",
}
COLUMNS = {
    "frozen, mIoU": ("linear", "miou"),
    "frozen, pixel accuracy": ("linear", "pixel_accuracy"),
    "fine-tuned, mIoU": ("fcn", "miou"),
    "fine-tuned, pixel accuracy": ("fcn", "pixel_accuracy"),
}


def dense(values: dict[str, Any]) -> str:
    """Return the table of segmentation on CamVid."""
    cells = {(row["features"], row["head"], row["metric"]): row for row in values["rows"]}
    pretraining, evaluation = values["pretraining"], values["evaluation"]
    title = "## Segmentation of CamVid, on two CPU cores\n\n"
    about = (
        "11 classes, the 233 test images of 240x180, in percent: mean over pretraining seeds "
        f"{', '.join(map(str, values['seeds']))} (+- their standard deviation). {pretraining['backbone']}, "
        f"{pretraining['epochs']} epochs on crops of {pretraining['image_size']} pixels of the 367 train "
        f"images, {pretraining['optimizer']}, the same settings for all methods, at most "
        f"{max(values['pretraining_seconds']):.0f} seconds, {values['minutes']:.0f} minutes for all "
        "of this, in one or more segments. Frozen: a linear head on the feature map, its rate chosen on the "
        "validation images. Fine-tuned: the whole network with a "
        f"convolutional head, rate {evaluation['finetune_rates']} per 256 images, "
        f"{evaluation['finetune_epochs']} epochs.\n\n"
    )
    rows = [
        [name, *(percent(cells[key, *column]) for column in COLUMNS.values())]
        for key, name in FEATURES.items()
    ]
    return title + about + table(["pretraining", *COLUMNS], rows)
