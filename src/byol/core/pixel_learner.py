"""PixPro and PixContrast: learners that compare the places of two views' feature maps."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from byol.augment.presets import ViewSpec
from byol.augment.view_settings import view_specs_of
from byol.augment.views import Preset, normalized, views
from byol.config import Normalization
from byol.core.backbone import Backbone
from byol.core.base_learner import Augmentation, Learner
from byol.core.dense_network import DenseNetwork, DensePredictor, DenseProjector, Projections
from byol.core.group_normalization import use_group_normalization
from byol.core.heads import byol_heads
from byol.core.losses import regression_loss
from byol.core.pixel_heads import PixelPropagation, pixel_projector
from byol.core.pixel_losses import matched_images, pixel_consistency, pixel_contrast
from byol.core.positives import positive_pairs
from byol.core.target import TargetNetwork
from byol.errors import UserError
from byol.types import StepOutput, View


class PixelCL(Learner):
    """Learn features for each place of an image: PixPro, or PixContrast (arXiv 2011.10043).

    Cells of the two views' feature maps that show the same spot are a positive pair. PixPro smooths the
    online map by pixel propagation and predicts the target's vectors of its positives from it; PixContrast
    tells them from all other cells of the other view. An instance branch does BYOL beside that::

        learner = byol.PixelCL(resnet, image_size=224)
        optimizer = torch.optim.Adam(learner.online_parameters(), lr=3e-4)
        loss = learner(images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        learner.update_moving_average()

    Args:
        net: any module that takes [B,C,H,W]; used as it is, not copied.
        image_size: side S of the views in pixels.
        hidden_layer_pixel: whose output is the feature map: a (dotted) name, a child's index, or None for
            the last layer that gives a map.
        hidden_layer_instance: whose output is the representation of the instance branch, and of
            `backbone(images)`; as `hidden_layer` of `byol.BYOL`.
        projection_size: width D of the projections, of pixels and of instances.
        projection_hidden_size: of their heads.
        augment_fn: replaces all of the views' preset but crop and flip; gets crops, floats [B,C,S,S] in
            [0,1], must leave every pixel where it is, and what it returns is used as it is.
        augment_fn2: for the second view; None: `augment_fn`.
        prob_rand_hflip: probability of mirroring a view.
        moving_average_decay: tau_base, 0 to 1.
        ppm_num_layers: of the propagation's transformation, 0 to 2.
        ppm_gamma: sharpness of its similarities, at least 1.
        distance_thres: cells of a positive pair are less than so many of their diagonals apart.
        similarity_temperature: of PixContrast.
        alpha: weight of the instance branch (in byol_multi_gpu it is that of the pixels' loss); 0: there is
            none, as in the paper's main results.
        use_pixpro: False is PixContrast.
        cutout_ratio_range: crops are squares, with areas drawn uniformly between the squares of these two
            numbers, as shares of the image's area; None: the preset's crops.
        cutout_interpolate_mode: of crops, bilinear or bicubic; None: the preset's, bilinear.
        coord_cutout_interpolate_mode: refused: coordinates are computed, not interpolated.
        len_dataloader: refused: in byol_multi_gpu it is the period of its own learning rate's schedule.
        total_steps: number of optimizer steps K over which tau rises to 1; None keeps it constant.
        sync_batchnorm: as of `byol.BYOL`.
        channels: of the images; None: those of the network's first convolution.
        preset: of the views, as `byol.views` takes it; both with a crop.
        normalization: as of `byol.BYOL`.

    docs/dense.md tells where this differs from the official code, docs/coming-from.md from byol_multi_gpu.

    Raises:
        UserError: as `byol.BYOL`, the pixels' layer gives no map, views have no crop, or an argument has no
            meaning here.
    """

    takes_views = True

    def __init__(
        self,
        net: nn.Module,
        image_size: int = 224,
        hidden_layer_pixel: str | int | None = "layer4",
        hidden_layer_instance: str | int | None = -2,
        projection_size: int = 256,
        projection_hidden_size: int = 4096,
        augment_fn: Augmentation | None = None,
        augment_fn2: Augmentation | None = None,
        prob_rand_hflip: float | None = None,
        moving_average_decay: float = 0.99,
        ppm_num_layers: int = 1,
        ppm_gamma: float = 2.0,
        distance_thres: float = 0.7,
        similarity_temperature: float = 0.3,
        alpha: float = 1.0,
        use_pixpro: bool = True,
        cutout_ratio_range: tuple[float, float] | None = None,
        cutout_interpolate_mode: str | None = None,
        coord_cutout_interpolate_mode: str | None = None,
        len_dataloader: int | None = None,
        *,
        total_steps: int | None = None,
        sync_batchnorm: bool | None = None,
        channels: int | None = None,
        preset: Preset = "pixpro",
        normalization: Normalization = "batch",
    ) -> None:
        super().__init__()
        _check_numbers(
            alpha=alpha, distance_thres=distance_thres, similarity_temperature=similarity_temperature
        )
        _refuse_foreign(coord_cutout_interpolate_mode, len_dataloader)
        self.image_size = image_size
        self.augment_fns = (augment_fn, augment_fn if augment_fn2 is None else augment_fn2)
        cropping = (prob_rand_hflip, cutout_ratio_range, cutout_interpolate_mode)
        first, second = view_specs_of(preset)
        self.preset = (_with_crop(first, *cropping), _with_crop(second, *cropping))
        self.threshold, self.temperature = distance_thres, similarity_temperature
        self.alpha, self.use_pixpro = alpha, use_pixpro
        backbone = Backbone(
            net,
            image_size,
            hidden_layer_instance,
            channels,
            normalization=normalization,
            feature_layer=hidden_layer_pixel,
        )
        backbone.prepare_feature_map()
        width, unreached = backbone.measured(backbone.feature_map)
        instance: tuple[nn.Module | None, nn.Module | None] = (None, None)
        if alpha:
            instance = byol_heads(backbone.num_features, projection_size, projection_hidden_size)
            unreached = sorted({*unreached} & {*backbone.unreached})
        propagation = PixelPropagation(projection_size, ppm_num_layers, ppm_gamma)
        self.predictor = DensePredictor(propagation if use_pixpro else nn.Identity(), instance[1])
        pixel = pixel_projector(width, projection_hidden_size, projection_size)
        projector = DenseProjector(pixel, instance[0])
        if normalization == "group":
            for head in (projector, self.predictor):
                use_group_normalization(head, head.modules())
        self.online = DenseNetwork(backbone, projector)
        self._follow(net)
        self._synchronize_batchnorm(sync_batchnorm)
        self.target = TargetNetwork(self.online, moving_average_decay, total_steps)
        self._leave_alone(unreached)

    def forward(
        self, images: Tensor | View, second_view: View | None = None, *, return_positive_pairs: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss of a batch.

        Args:
            images: [B,C,H,W], uint8 or float in [0,1], of which two views are drawn; with `second_view`,
                the first of two views as `byol.views(..., return_geometry=True)` returns them.
            second_view: the other view.
            return_positive_pairs: return the number of positive pairs of cells, too.

        Returns:
            The loss, without the instance branch 0 to 8 (PixPro, both directions of 2 - 2 cos summed) or at
            least 0 (PixContrast, mean of both directions); `alpha` times 0 to 8 for the instance branch.
            0 where no image has a positive pair.

        Raises:
            ValueError: fewer than two images in training: batch normalisation has no statistics.
            UserError: a view is no `View`, or has no box, the views are of different shapes, or torch's
                DataParallel called, whose copies of the learner would share its state.
        """
        self._refuse_copies()
        if second_view is None:
            if not isinstance(images, Tensor):
                raise UserError("one view alone has nothing to be compared with: give both, or the images")
            view1, view2 = self.draw_views(images)
        else:
            view1, view2 = _checked(images), _checked(second_view)
        output, pairs = self._compare(view1, view2, None)
        return (output.loss, pairs.sum()) if return_positive_pairs else output.loss

    # Eager under torch.compile: it draws for any batch size, and calls the user's own functions.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def draw_views(self, images: Tensor) -> tuple[View, View]:
        """Return two views of images [B,C,H,W], by the preset or, after crop and flip, by `augment_fn`."""
        first, second = (replace(view, image=view.image.to(self.dtype)) for view in self._drawn(images))
        return first, second

    def _drawn(self, images: Tensor) -> tuple[View, View]:
        if self.augment_fns == (None, None):
            return views(images, self.image_size, self.preset, return_geometry=True)
        specs = tuple(
            spec if function is None else ViewSpec(crop=spec.crop, flip=spec.flip, semantics=spec.semantics)
            for spec, function in zip(self.preset, self.augment_fns, strict=True)
        )
        drawn = views(images, self.image_size, (specs[0], specs[1]), normalize=None, return_geometry=True)
        first, second = (
            replace(
                view, image=normalized(view.image, "imagenet") if function is None else function(view.image)
            )
            for view, function in zip(drawn, self.augment_fns, strict=True)
        )
        return first, second

    def compare(self, view1: View, view2: View) -> StepOutput:
        """Return loss and projections of two views; those are of all places, [2 h w B,D]."""
        return self._compare(view1, view2, None)[0]

    def compare_in_turn(self, view1: View, view2: View, share: float = 1.0) -> StepOutput:
        """Return what `compare` does for half of its memory, as `byol.BYOL.compare_in_turn` does."""
        return self._compare(view1, view2, share)[0]

    def _compare(self, view1: View, view2: View, share: float | None) -> tuple[StepOutput, Tensor]:
        """Compare; with a share, the first direction goes backward here. Return pairs [B,h w,h w], too."""
        self._check_views(view1.image, view2.image)
        assert self.target is not None
        target1, target2 = self.target(view1.image), self.target(view2.image)
        pairs = positive_pairs(view1, view2, target1.pixel.shape[2:], self.threshold)
        matched = matched_images(pairs)
        loss1, online1 = self._direction(view1.image, target2, pairs, matched)
        if share is not None:
            with torch.autocast(loss1.device.type, enabled=False):  # as around a loop's own `backward`
                (loss1 * share).backward()
            loss1 = loss1.detach()
        loss2, online2 = self._direction(view2.image, target1, pairs.transpose(1, 2), matched)
        projection, target = _rows(online1.pixel, online2.pixel), _rows(target1.pixel, target2.pixel)
        representation = torch.cat([online1.representation, online2.representation])
        return StepOutput(loss1 + loss2, projection, target, representation), pairs

    def _direction(
        self, view: Tensor, target: Projections, pairs: Tensor, matched: Tensor
    ) -> tuple[Tensor, Projections]:
        """Return the loss of a view [B,C,S,S] against the target's other one, and its projections."""
        online: Projections = self.online(view)
        prediction, predicted = self.predictor(online)
        with torch.autocast(view.device.type, enabled=False):
            if self.use_pixpro:
                losses = pixel_consistency(prediction, target.pixel, pairs)
            else:
                losses = pixel_contrast(prediction, target.pixel, pairs, self.temperature) / 2
            loss = losses.sum() / matched
        if predicted is not None:
            assert target.instance is not None
            loss = loss + self.alpha * regression_loss(predicted, target.instance).mean()
        return loss, online


def _rows(*maps: Tensor) -> Tensor:
    """Return the vectors of all places of maps [B,D,h,w] as rows [h w B,D], one map after the other.

    Neighbours among rows are of different images: what is watched looks at the first of them.
    """
    return torch.cat([each.detach().permute(2, 3, 0, 1).flatten(0, 2) for each in maps])


def _checked(view: Tensor | View) -> View:
    if not isinstance(view, View):
        raise UserError(
            "the pixels of two views can be matched only where their crops are known: give what "
            "byol.views(images, return_geometry=True) returns, or the images themselves"
        )
    return view


def _with_crop(
    spec: ViewSpec, flip: float | None, sides: tuple[float, float] | None, interpolation: str | None
) -> ViewSpec:
    """Return a view with a probability of mirroring, square crops and an interpolation, each where given."""
    crop = spec.crop
    if crop is None:
        raise UserError(
            "pixels are matched between crops: choose views with a crop (preset imagenet or small)"
        )
    if sides is not None:
        if not 0 < sides[0] <= sides[1] <= 1:
            raise UserError(
                f"cutout_ratio_range is {sides}, it must be two numbers from 0 to 1, the smaller first"
            )
        crop = replace(crop, scale=(sides[0] ** 2, sides[1] ** 2), ratio=(1.0, 1.0))
    if interpolation is not None:
        crop = replace(crop, interpolation=interpolation)
    return replace(spec, crop=crop, flip=spec.flip if flip is None else flip)


def _refuse_foreign(coordinates: str | None, len_dataloader: int | None) -> None:
    """Refuse what byol_multi_gpu takes and what means nothing here, rather than ignore it."""
    if coordinates is not None:
        raise UserError("coord_cutout_interpolate_mode: leave it out, coordinates are computed exactly")
    if len_dataloader is not None:
        raise UserError(
            "len_dataloader is the period of byol_multi_gpu's learning rate: that is your scheduler's here. "
            "total_steps makes tau rise"
        )


def _check_numbers(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (value > 0 or (value == 0 and name == "alpha")):  # nor is NaN
            raise UserError(
                f"{name} is {value}, it must be {'0 or more' if name == 'alpha' else 'more than 0'}"
            )
