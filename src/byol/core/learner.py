"""BYOL and SimSiam as one module that wraps any network, for any training loop."""

from typing import cast

import torch
from torch import Tensor, nn

from byol.augment.presets import pixel_statistics
from byol.augment.view_settings import view_specs_of
from byol.augment.views import Preset, normalized, views, warn_once_if_out_of_range
from byol.config import Normalization, TargetStatistics
from byol.core.aliases import keyword_aliases
from byol.core.backbone import Backbone
from byol.core.base_learner import Augmentation, Learner
from byol.core.group_normalization import use_group_normalization
from byol.core.heads import byol_heads, simsiam_heads
from byol.core.losses import negative_cosine, regression_loss
from byol.core.online_network import OnlineNetwork
from byol.core.processes import gathered
from byol.core.simplicial import SimplicialEmbedding
from byol.core.target import TargetNetwork, check_statistics
from byol.types import StepOutput


class BYOL(Learner):
    """Bootstrap Your Own Latent (arXiv 2006.07733): predict a slow copy of yourself across two views.

    Wrap a network, call the learner on images, step your optimizer, then call
    `update_moving_average`. The network itself is what gets trained::

        learner = byol.BYOL(resnet, image_size=224, hidden_layer="avgpool")
        optimizer = torch.optim.Adam(learner.online_parameters(), lr=3e-4)
        loss = learner(images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        learner.update_moving_average()

    Call `learner.train()` first where the network is in eval mode, as `byol.load_backbone` returns it.

    Args:
        net: any module that takes [B,C,H,W]; used as it is, not copied.
        image_size: side S of the views in pixels.
        hidden_layer: whose output is the representation: a child's index, a (dotted) name, or None
            for the network's own output. Maps are averaged over space, tokens over the patches.
        projection_size: width D of the projections; None: 256, SimSiam 2048.
        projection_hidden_size: of projector and predictor; None: 4096, SimSiam 2048 (whose
            predictor has a quarter of it).
        augment_fn: replaces the views' preset; gets floats [B,C,H,W] in [0,1], and what it returns
            is used as it is.
        augment_fn2: for the second view; None: `augment_fn`.
        moving_average_decay: tau_base, 0 to 1.
        use_momentum: False is SimSiam (arXiv 2011.10566): no target network, its own heads and loss.
        sync_batchnorm: compute batch statistics over all processes; None: where there are several,
            each on a GPU.
        channels: of the images; None: those of the network's first convolution.
        total_steps: number of optimizer steps K over which tau rises to 1; None keeps it constant.
        preset: of the views, as `byol.views` takes it.
        concatenate_views: one forward pass for both views. Cheaper in places, but batch
            normalisation then mixes their statistics, which the published method does not.
        target_statistics: what the target's batch normalisation uses: "own", each batch's statistics;
            "copy" or "average", running statistics that each update copies from the online network's
            or averages with them.
        normalization: "batch", or "group": no batch statistics anywhere (arXiv 2010.10241). Group norms
            after standardised weights take the place of all batch norms, in the heads and in `net`,
            which is changed in place.
        gather_projections: the loss and the projections that `compare` returns are of all processes'
            batches together, which must be of one size; representations are those of its own. Gradients
            are those of one process with the whole batch, as they are without it; it costs what it sends.
            One process: no effect.
        simplicial_embeddings: between representation and projector, softmax over groups of outputs
            (arXiv 2204.00616): `num_simplices` groups of `simplex_size` at `simplex_temperature`.

    `base_model` is another name for `net`, and `moving_avg_decay` for `moving_average_decay`.

    Raises:
        UserError: the hidden layer does not exist, the network cannot take such images, a number is
            out of its range, a choice is unknown or means nothing beside the others, or
            `sync_batchnorm` is asked for on a CPU.
    """

    @keyword_aliases(base_model="net", moving_avg_decay="moving_average_decay")
    def __init__(
        self,
        net: nn.Module,
        image_size: int = 224,
        hidden_layer: str | int | None = -2,
        projection_size: int | None = None,
        projection_hidden_size: int | None = None,
        augment_fn: Augmentation | None = None,
        augment_fn2: Augmentation | None = None,
        moving_average_decay: float = 0.99,
        use_momentum: bool = True,
        sync_batchnorm: bool | None = None,
        channels: int | None = None,
        total_steps: int | None = None,
        *,
        preset: Preset = "imagenet",
        concatenate_views: bool = False,
        target_statistics: TargetStatistics = "own",
        normalization: Normalization = "batch",
        gather_projections: bool = False,
        simplicial_embeddings: bool = False,
        num_simplices: int = 32,
        simplex_size: int = 8,
        simplex_temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.augment_fn = augment_fn
        self.augment_fn2 = augment_fn if augment_fn2 is None else augment_fn2
        self.preset = view_specs_of(preset)
        self.concatenate_views = concatenate_views
        self.gather_projections = gather_projections
        self._sizes_checked = False
        check_statistics(target_statistics, use_momentum, normalization)
        backbone = Backbone(net, image_size, hidden_layer, channels, normalization=normalization)
        inputs, before_projector = backbone.num_features, nn.Sequential()
        if simplicial_embeddings:
            simplices = (num_simplices, simplex_size, simplex_temperature)
            before_projector.append(SimplicialEmbedding(inputs, *simplices))
            inputs = num_simplices * simplex_size
        make_heads = byol_heads if use_momentum else simsiam_heads
        projector, predictor = make_heads(inputs, projection_size, projection_hidden_size)
        projector = before_projector + projector
        if normalization == "group":
            for head in (projector, predictor):
                use_group_normalization(head, head.modules())
        # In this order: an optimizer's saved state knows parameters by their place only.
        self.online = OnlineNetwork(backbone, projector)
        self.predictor = predictor
        self._follow(net)
        self._synchronize_batchnorm(sync_batchnorm)
        self.target: TargetNetwork | None = None
        if use_momentum:
            self.target = TargetNetwork(self.online, moving_average_decay, total_steps, target_statistics)
        self._leave_alone(backbone.unreached)

    def forward(
        self,
        images: Tensor,
        second_view: Tensor | None = None,
        *,
        return_embedding: bool = False,
        return_projection: bool = True,
        get_embedding: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss of a batch, or embeddings.

        Args:
            images: [B,C,H,W], uint8 or float in [0,1], of which two views are drawn; with
                `second_view`, the first of two ready-made views, normalised [B,C,S,S].
            second_view: the other ready-made view.
            return_embedding: return what the online network makes of the images instead, without
                augmentation: projections [B,D] and embeddings (representations).
            return_projection: False leaves the projections out of that.
            get_embedding: a shorter word for both of these: return embeddings [B,D] alone.

        Returns:
            The loss: 0 to 8 for BYOL (2 - 2 cos in both directions, summed), -1 to 1 for SimSiam.

        Raises:
            ValueError: fewer than two images in training: batch normalisation has no statistics.
            UserError: the views are of different shapes, or torch's DataParallel called, whose copies of
                the learner would share its state.
        """
        self._refuse_copies()
        if return_embedding or get_embedding:
            return self._embed(images, return_projection and not get_embedding)
        if second_view is None:
            images, second_view = self.draw_views(images)
        return self.compare(images, second_view).loss

    # Eager under torch.compile: it draws for any batch size, and calls the user's own functions.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def draw_views(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return two normalised views [B,C,S,S] of images [B,C,H,W], by the preset or `augment_fn`."""
        if self.augment_fn2 is None:
            first, second = views(images, self.image_size, self.preset)
        elif self.augment_fn is None:
            first, _ = views(images, self.image_size, self.preset)
            second = self.augment_fn2(_own_floats(images))
        else:
            first, second = self.augment_fn(_own_floats(images)), self.augment_fn2(_own_floats(images))
        return first.to(self.dtype), second.to(self.dtype)

    def compare(self, view1: Tensor, view2: Tensor) -> StepOutput:
        """Return loss and projections of two normalised views [B,C,S,S].

        Raises:
            ValueError: fewer than two images in training: batch normalisation has no statistics.
            UserError: the views are of different shapes.
        """
        self._check_views(view1, view2)
        online1, online2, representation = self._online_on_both(view1, view2)
        prediction1, prediction2 = self._on_both(self.predictor, online1, online2)
        online1, online2 = online1.detach(), online2.detach()
        on_both = None if self.target is None else self._on_both(self.target, view1, view2)
        target1, target2 = on_both or (online1, online2)  # SimSiam predicts the online network itself
        if self.gather_projections:
            # Of different sizes in the first step, they would be so in all.
            prediction1, prediction2 = gathered(prediction1, prediction2, check_sizes=not self._sizes_checked)
            self._sizes_checked = True
            online1, online2, target1, target2 = gathered(online1, online2, target1, target2)
        if self.target is None:
            both = negative_cosine(prediction1, target2) + negative_cosine(prediction2, target1)
            loss = both.mean() / 2
        else:
            loss = (regression_loss(prediction1, target2) + regression_loss(prediction2, target1)).mean()
        projection, target = torch.cat([online1, online2]), torch.cat([target1, target2])
        return StepOutput(loss, projection, target, representation)

    def compare_in_turn(self, view1: Tensor, view2: Tensor, share: float = 1.0) -> StepOutput:
        """Return what `compare` does for half of its memory: one direction at a time is held for backward.

        The first direction goes backward here, and adds to `.grad`; `backward` on the loss, whose value is
        of both directions, does so for the second. The sum is what `compare` gives. So gradients are set
        to zero before the call, not between the two. Learners whose directions are not apart (SimSiam,
        concatenated views, gathered projections) do what `compare` does.

        In several processes call it inside the forward of what DistributedDataParallel wraps, which exchanges
        no gradients otherwise.

        Args:
            view1: normalised, [B,C,S,S]; `view2` too.
            share: what the loss is multiplied by before `backward`: 1/n where n batches make a step.
        """
        if self.target is None or self.concatenate_views or self.gather_projections:
            return self.compare(view1, view2)
        self._check_views(view1, view2)
        target1, target2 = self.target(view1), self.target(view2)
        loss1, *online1 = self._direction(view1, target2)
        with torch.autocast(loss1.device.type, enabled=False):  # as around a loop's own `backward`
            (loss1 * share).backward()
        loss2, *online2 = self._direction(view2, target1)
        projection, representation = map(torch.cat, zip(online1, online2, strict=True))
        return StepOutput(loss2 + loss1.detach(), projection, torch.cat([target1, target2]), representation)

    def _on_both(self, network: nn.Module, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Run a network on both views: one pass each, so that each has its own batch statistics."""
        if self.concatenate_views:
            return cast(tuple[Tensor, Tensor], network(torch.cat([first, second])).chunk(2))
        return network(first), network(second)

    def _online_on_both(self, view1: Tensor, view2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the projections [B,D] of each view, and the representations [2B,D] of both, detached."""
        if self.concatenate_views:
            projection, representation = self.online(torch.cat([view1, view2]), with_representation=True)
            return (*projection.chunk(2), representation.detach())
        projection1, representation1 = self.online(view1, with_representation=True)
        projection2, representation2 = self.online(view2, with_representation=True)
        return projection1, projection2, torch.cat([representation1, representation2]).detach()

    def _direction(self, view: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss of predicting a target from the other view; its outputs on the way, detached."""
        projection, representation = self.online(view, with_representation=True)  # [B,D] each
        loss = regression_loss(self.predictor(projection), target).mean()
        return loss, projection.detach(), representation.detach()

    def _embed(self, images: Tensor, return_projection: bool) -> Tensor | tuple[Tensor, Tensor]:
        images = _own_floats(images)
        if self.augment_fn is None:
            warn_once_if_out_of_range(images)
            images = normalized(images, pixel_statistics(images.shape[1]))
        embedding = self.online.backbone(images.to(self.dtype))
        return (self.online.projector(embedding), embedding) if return_projection else embedding


def _own_floats(images: Tensor) -> Tensor:
    """Return images as float32 in [0,1] that may be changed in place."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.to(torch.float32, copy=True)
