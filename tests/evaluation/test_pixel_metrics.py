import math

import pytest
import torch

from byol.data.masks import PixelClasses
from byol.evaluation.pixel_metrics import class_ious, mean_iou, pixel_accuracy, pixel_confusion


@pytest.mark.parametrize("void", [255, 4, 0])
def test_against_a_loop_over_pixels(void: int) -> None:
    generator = torch.Generator().manual_seed(void)
    shapes = [(5, 7), (5, 7), (3, 2)]
    masks = [torch.randint(0, 5, shape, generator=generator, dtype=torch.uint8) for shape in shapes]
    masks[0][masks[0] == 3] = void
    guesses = [torch.randint(0, 5, shape, generator=generator, dtype=torch.uint8) for shape in shapes]
    classes = PixelClasses(tuple("abcde"), void)
    both, truly, given, right, counted = [0] * 5, [0] * 5, [0] * 5, 0, 0
    for mask, guess in zip(masks, guesses, strict=True):
        for true, said in zip(mask.flatten().tolist(), guess.flatten().tolist(), strict=True):
            if true == void:
                continue
            counted += 1
            truly[true] += 1
            given[said] += 1
            if true == said:
                right += 1
                both[true] += 1
    unions = [truly[k] + given[k] - both[k] for k in range(5)]
    ious = [both[k] / unions[k] for k in range(5) if unions[k]]
    confusion = pixel_confusion(guesses, masks, classes)
    assert confusion.sum(dim=1).tolist() == truly and confusion.sum(dim=0).tolist() == given
    assert mean_iou(confusion) == pytest.approx(sum(ious) / len(ious), abs=1e-12)
    assert pixel_accuracy(confusion) == pytest.approx(right / counted, abs=1e-12)


def test_classes_that_do_not_occur_are_left_out_and_wrongly_predicted_ones_count_zero() -> None:
    mask, guess = torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0, 0, 2, 1]])
    confusion = pixel_confusion([guess], [mask], PixelClasses(tuple("abcd"), 255))
    ious = class_ious(confusion).tolist()
    assert ious[:3] == pytest.approx([2 / 3, 1, 0]) and math.isnan(ious[3])
    assert mean_iou(confusion) == pytest.approx((2 / 3 + 1 + 0) / 3)
