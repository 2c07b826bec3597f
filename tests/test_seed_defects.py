"""Each known defect of the five systems in docs/coming-from.md, and the tests here that it would fail."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PROJECT = TESTS.parent
NOTES = PROJECT.parent / "shared" / "reference" / "byol.md"

# A key is the system, the number that the notes give the defect (- where they give none), and the defect.
DEFECTS = {
    # Spijkervet/BYOL
    "000.1 features of batch statistics, which move meanwhile": (
        "evaluation/test_weights_file.py::test_vectors_come_from_these_weights_in_eval_mode",
        "evaluation/test_features.py::test_vectors_equal_one_image_at_a_time_in_order",
        "evaluation/test_features.py::test_state_is_bit_identical_and_modes_come_back",
    ),
    "000.2 the last test images left out, a mean of batch means": (
        "evaluation/test_run.py::test_every_image_of_the_split_counts_the_same",
    ),
    "000.3 features of another checkpoint used again": (
        "evaluation/test_run.py::test_the_cache_is_used_and_follows_the_weights",
        "evaluation/test_features.py::test_fingerprint_covers_weights_preprocessing_and_images",
    ),
    "000.4 the same order in every epoch": (
        "data/test_batches.py::test_epochs_and_seeds_differ",
        "training/test_seed_trainer.py::test_an_epoch_has_each_image_once_and_a_new_order",
    ),
    "000.5 the target asks for gradients, and its optimizer holds it": (
        "core/test_target_network.py::test_no_optimizer_moves_it",
        "training/test_optimizer.py::test_it_holds_all_online_parameters_and_no_others",
    ),
    "000.6 weights not loaded before they are judged": (
        "evaluation/test_weights_file.py::test_vectors_come_from_these_weights_in_eval_mode",
    ),
    "000.7 the loss read in every step": (
        "training/test_host_reads.py::test_a_run_reads_nothing_between_two_log_lines",
    ),
    "000.8 runs do not repeat, and know one precision": (
        "training/test_pretrain.py::test_saved_config_reproduces_the_run",
        "training/test_pretrain.py::test_seed_changes_the_run",
        "training/test_pretrain.py::test_every_method_optimizer_precision_and_option_runs",
    ),
    "000.- several machines meet at 127.0.0.1": (
        "training/test_distributed_docs.py::test_two_machines_complete_a_run",
    ),
    "000.- batch statistics of each process alone": (
        "core/test_whole_batch.py::test_batch_norms_are_synchronised_where_each_process_has_a_gpu",
    ),
    "000.- augment_fn ignored": (
        "core/test_learner_views.py::test_the_users_augmentation_gets_plain_floats_and_is_used_as_it_is",
    ),
    "000.- a checkpoint is the backbone, nothing resumes": (
        "training/test_resume.py::test_killed_run_resumes_exactly",
    ),
    "000.- STL-10 claimed without code": (
        "data/test_named_sets.py::test_stl10_pretrains_on_train_and_unlabeled",
        "test_coming_from.py::test_spijkervet",
    ),
    # sabadijou/byol_multi_gpu
    "001.0 the backbone frozen, heads built after the optimizer": (
        "core/test_pixel_step.py::test_one_step_moves_all_that_it_should_and_nothing_else",
        "core/test_training_step.py::test_every_online_parameter_moves_and_no_other",
        "training/test_optimizer.py::test_it_holds_all_online_parameters_and_no_others",
    ),
    "001.1 the target is the online network": (
        "core/test_pixel_step.py::test_one_step_moves_all_that_it_should_and_nothing_else",
        "core/test_target_network.py::test_it_is_a_copy_and_shares_no_memory",
    ),
    "001.2 augmentations never called, one crop and mirroring a batch": (
        "core/test_pixel_views.py::test_every_image_has_crops_of_its_own",
        "core/test_pixel_views.py::test_views_are_those_of_the_preset",
        "core/test_pixel_views.py::test_the_users_augmentation_gets_crops_of_both_views",
    ),
    "001.3 images tiled instead of resized, grey scrambled, unreadable replaced, one flat folder": (
        "data/test_batches.py::test_cut_equals_torchvision",
        "data/test_decode.py::test_grey_is_repeated_for_three_channels_and_colour_weighed_for_one",
        "test_bad_input.py::test_unreadable_image_is_named",
        "data/test_folder.py::test_unlabelled",
    ),
    "001.4 pixels not normalised": (
        "augment/test_views.py::test_normalization",
        "core/test_pixel_views.py::test_views_are_those_of_the_preset",
    ),
    "001.5 the positives of one process's crops for gathered projections of all": (
        "core/test_pixel_whole_batch.py::test_without_cross_sample_statistics",
        "test_bad_input.py::test_words_and_status",
    ),
    "001.6 gradients of gathered projections divided by the processes": (
        "core/test_whole_batch.py::test_without_cross_sample_statistics",
    ),
    "001.7 gathering stops a single process": ("core/test_whole_batch.py::test_one_process_gathers_nothing",),
    "001.8 copies that share memory, or lack heads": (
        "core/test_target_network.py::test_it_is_a_copy_and_shares_no_memory",
        "core/test_learner_use.py::test_the_wrapped_network_can_be_copied_and_used_alone",
        "core/test_learner_use.py::test_copies_and_pickles_work_on_their_own",
    ),
    "001.9 written for another Lightning": (
        "training/test_pixel_runs.py::test_a_resumed_run_is_an_uninterrupted_one",
        "test_coming_from.py::test_byol_multi_gpu",
    ),
    "001.10 similarities of all channels of all pairs of places in memory": (
        "benchmarks/test_scripts.py::test_pixel_memory",
    ),
    "001.- every process writes, at every batch": (
        "training/test_processes.py::test_second_of_two_dies_and_one_goes_on",
        "training/test_kept_backbones.py::test_one_bundle_each_period",
    ),
    "001.- a cosine whose period is the batches of an epoch, in epochs": (
        "training/test_pretrain.py::test_the_learning_rate_falls_once_in_the_whole_run",
    ),
    # lucidrains/byol-pytorch
    "002.- simplicial embeddings by default": (
        "core/test_simplicial.py::test_off_by_default_and_with_the_published_sizes",
    ),
    "002.- SimSiam without its own heads": (
        "core/test_learner_use.py::test_the_default_heads_are_the_published_ones",
    ),
    "002.- the predictor ignores sync_batchnorm": (
        "core/test_whole_batch.py::test_batch_norms_are_synchronised_where_each_process_has_a_gpu",
        "core/test_whole_batch.py::test_without_synchronisation_each_process_has_its_own_statistics",
    ),
    "002.- both views share batch statistics": (
        "core/test_loss_reference.py::test_byol",
        "core/test_loss_reference.py::test_concatenating_changes_the_batch_statistics",
    ),
    "002.- construction moves the network's statistics": (
        "core/test_learner_use.py::test_construction_leaves_the_network_as_it_was",
    ),
    "002.- one draw of the augmentation a batch": (
        "core/test_learner_views.py::test_copies_of_one_image_become_views_that_all_differ",
    ),
    "002.- tau constant": (
        "core/test_target_network.py::test_tau_rises_from_its_base_to_one",
        "test_recipes.py::test_recipe_takes_correct_steps",
    ),
    "002.- nothing resumes, the step is not stored": (
        "training/test_seed_trainer.py::test_stopped_and_called_again_it_ends_as_if_it_had_run_through",
        "training/test_seed_trainer.py::test_a_saved_state_goes_on_in_another_trainer",
    ),
    "002.- a checkpoint before the first step": (
        "training/test_seed_trainer.py::test_checkpoints_are_plain_state_dicts",
        "training/test_seed_processes.py::test_the_first_process_alone_writes",
    ),
    "002.a the trainer calls what DDP hides": ("test_coming_from.py::test_byol_pytorch",),
    "002.b synchronised batch norm on a CPU stops the construction": (
        "test_coming_from.py::test_byol_pytorch",
        "core/test_learner_use.py::test_synchronised_batch_norm_needs_a_gpu",
    ),
    "002.c DDP has to search for parameters without gradient": (
        "core/test_two_processes.py::test_two_processes_stay_together",
    ),
    "002.d DataParallel fails in a hook": (
        "core/test_learner_use.py::test_data_parallel_copies_are_refused",
    ),
    "002.- a last batch of one image": (
        "training/test_seed_trainer.py::test_an_epoch_has_each_image_once_and_a_new_order",
        "training/test_seed_train_byol.py::test_loaders_of_either_kind_and_a_last_batch_of_one",
    ),
    "002.- no workers": ("training/test_seed_trainer.py::test_workers_read_the_same_images",),
    "002.- the loss printed in every step": (
        "training/test_seed_trainer.py::test_steps_neither_wait_nor_print",
    ),
    "002.- two barriers a step": (
        "training/test_seed_processes.py::test_processes_wait_for_each_other_at_the_end_only",
    ),
    "002.- three copies of the backbone in the state": (
        "core/test_learner_use.py::test_the_state_holds_the_backbone_once_per_network",
    ),
    "002.- maps flattened into the projector": (
        "core/test_hidden_layer.py::test_maps_are_averaged_over_space_in_both_layouts",
    ),
    "002.- float images of three channels only": (
        "core/test_learner_views.py::test_other_numbers_of_channels",
        "core/test_learner_views.py::test_copies_of_one_image_become_views_that_all_differ",
    ),
    "002.- gradients zeroed before the step": (
        "training/test_seed_trainer.py::test_steps_are_those_of_the_loop_written_out",
    ),
    "002.- SimSiam does not learn": ("core/test_loss_reference.py::test_simsiam",),
    # TomekGniazdowski/BYOL-From-Scratch
    "003.- heads without ReLU, a predictor of width 256": (
        "core/test_learner_use.py::test_the_default_heads_are_the_published_ones",
    ),
    "003.- the target's projector is drawn anew and never moves": (
        "core/test_target_network.py::test_its_projector_starts_as_the_online_one_and_is_averaged_too",
    ),
    "003.- the target asks for gradients": ("core/test_target_network.py::test_no_optimizer_moves_it",),
    "003.- the loss is a sum over the batch": (
        "core/test_loss_reference.py::test_the_loss_is_a_mean_over_the_batch_not_a_sum",
    ),
    "003.- one image loses its dimension": (
        "core/test_learner_use.py::test_one_image_is_enough_for_an_embedding",
        "training/test_seed_train_byol.py::test_it_trains_in_training_mode_and_returns_an_encoder",
    ),
    "003.- image_size reaches no view": (
        "core/test_learner_views.py::test_copies_of_one_image_become_views_that_all_differ",
    ),
    "003.- a loop over the images of a batch": (
        "augment/test_one_graph.py::test_both_views_are_one_graph_off_the_cpu",
    ),
    "003.- the frozen probe's network in train mode": (
        "evaluation/test_run.py::test_the_network_keeps_its_modes_and_its_state",
    ),
    # Nebulised/BYOL-Pytorch
    "004.1 its own fine-tuning settings lack a key": (
        "evaluation/test_finetune_run.py::test_flags_of_the_command_line",
        "test_coming_from.py::test_nebulised",
    ),
    "004.2 no training without a GPU": ("training/test_pretrain.py::test_saved_config_reproduces_the_run",),
    "004.3 a misspelt key stops the program later": ("test_bad_input.py::test_unknown_key_in_config",),
    "004.4 MLflow is needed and not installed": (
        "test_tracking.py::test_missing_extra_is_named",
        "test_layers.py::test_a_heavy_library_has_one_home",
    ),
    "004.5 batch norm momentum upside down": (
        "evaluation/test_supervised.py::test_batch_norm_momentum_in_the_convention_of_pytorch",
        "evaluation/test_supervised.py::test_running_statistics_follow_that_momentum",
    ),
    "004.6 after a validation frozen statistics move": (
        "evaluation/test_run.py::test_the_network_keeps_its_modes_and_its_state",
        "evaluation/test_supervised.py::test_what_is_frozen_stays_bit_for_bit",
    ),
    "004.7 validated on augmented images": (
        "evaluation/test_supervised.py::test_scores_are_of_whole_images_in_eval_mode",
    ),
    "004.8 EMNIST stops at the first image": ("training/test_emnist.py::test_every_split_trains",),
    "004.9 the error about shapes is an error itself": (
        "core/test_learner_views.py::test_views_of_different_shapes_are_one_line",
    ),
    "004.10 test images one by one": (
        "evaluation/test_features.py::test_images_are_passed_in_batches",
        "evaluation/test_supervised.py::test_scores_are_of_whole_images_in_eval_mode",
    ),
    "004.11 a last batch of a few images": (
        "data/test_batches.py::test_processes_and_micro_batches_share_out_each_epoch",
    ),
    "004.- solarize compares bytes with 0.5": ("augment/test_colour.py::test_solarize_equals_torchvision",),
    "004.- checkpoints hold pickled modules": (
        "core/test_weights.py::test_a_pickled_network_is_refused_with_what_to_save_instead",
        "test_layers.py::test_pickles_are_read_onto_the_cpu_and_without_running_code",
    ),
    "004.- tensors of a GPU cannot be read without one": (
        "core/test_weights.py::test_weights_of_a_gpu_are_read_without_one",
        "training/test_resume.py::test_a_run_of_a_gpu_goes_on_without_one",
        "test_layers.py::test_pickles_are_read_onto_the_cpu_and_without_running_code",
    ),
    "004.- a resumed run repeats an epoch": ("training/test_resume.py::test_killed_run_resumes_exactly",),
    "004.- settings chosen by the test split": (
        "evaluation/test_run.py::test_test_labels_never_influence_a_choice",
        "evaluation/test_finetune_run.py::test_the_test_split_is_read_once_and_its_labels_decide_nothing",
    ),
    "004.- a learning rate that does not follow the batch": (
        "test_recipes.py::test_recipe_takes_correct_steps",
    ),
    "004.- biases and norms decayed": ("optim/test_parameter_groups.py::test_norms_and_biases_are_excluded",),
}

# The notes' table of what which system has: what shows that it is here.
FEATURES = {
    "CLI / config file": "test_cli.py::test_flags_beat_config_beats_recipe_in_any_order",
    "arbitrary backbone": "core/test_hidden_layer.py::test_layers_by_name_index_and_none",
    "small-image stem": "core/test_build_backbone.py::test_stems",
    "BYOL heads exact (bias F on out)": (
        "core/test_learner_use.py::test_the_default_heads_are_the_published_ones"
    ),
    "separate view forwards": "core/test_loss_reference.py::test_byol",
    "sum of 2 terms, batch mean": "core/test_loss_reference.py::test_both_directions_count_alike",
    "encoder actually trained": "core/test_training_step.py::test_every_online_parameter_moves_and_no_other",
    "EMA target works": "core/test_target_network.py::test_it_equals_the_average_in_closed_form",
    "tau cosine schedule": "core/test_target_network.py::test_tau_rises_from_its_base_to_one",
    "BN buffers EMA'd": "core/test_target_statistics.py::test_averaged_statistics_equal_the_closed_form",
    "asymmetric T/T'": "augment/test_draw.py::test_probabilities_are_the_paper_s",
    "per-sample augs": "augment/test_views.py::test_every_image_has_its_own_two_views",
    "blur / solarize": "augment/test_chain.py::test_a_thousand_views_equal_torchvision",
    "input normalisation": "augment/test_views.py::test_normalization",
    "LARS w/ exclusions": "optim/test_lars.py::test_two_hundred_steps_of_a_network_with_exclusions",
    "LR x batch/256": "test_recipes.py::test_recipe_takes_correct_steps",
    "warm-up + cosine": "training/test_pretrain.py::test_the_learning_rate_falls_once_in_the_whole_run",
    "epoch presets": "test_recipes.py::test_imagenet_recipe_is_the_published_one",
    "gradient accumulation + EMA": (
        "training/test_pretrain.py::test_accumulation_moves_the_target_once_per_optimizer_step"
    ),
    "AMP": "training/test_pretrain.py::test_every_method_optimizer_precision_and_option_runs",
    "DDP": "core/test_whole_batch.py::test_without_cross_sample_statistics",
    "SyncBN": "core/test_whole_batch.py::test_batch_norms_are_synchronised_where_each_process_has_a_gpu",
    "gather layer": "core/test_whole_batch.py::test_gathered_outputs_are_those_of_the_whole_batch",
    "full resume": "training/test_resume.py::test_killed_run_resumes_exactly",
    "linear eval, correct frozen BN": (
        "evaluation/test_run.py::test_the_network_keeps_its_modes_and_its_state"
    ),
    "LR sweep/val split": "evaluation/test_linear.py::test_the_rate_is_the_best_by_the_metric",
    "fine-tune": "evaluation/test_supervised.py::test_a_fit_equals_the_published_one_written_out",
    "semi-sup 1/10%": "data/test_splits.py::test_a_share_of_each_class",
    "kNN eval": "evaluation/test_knn.py::test_equals_scikit_learn",
    "transfer suite / detection / seg": "evaluation/test_logistic.py::test_transfer_equals_scikit_learn",
    "online probe / collapse monitor": (
        "training/test_monitoring.py::test_alarm_fires_without_predictor_and_names_cause_and_remedy"
    ),
    "SimSiam mode": "core/test_loss_reference.py::test_simsiam",
    "GN+WS mode": "core/test_group_normalization.py::test_loss_and_gradients_equal_the_algorithm_written_out",
    "pixel-level (PixPro)": "core/test_pixel_step.py::test_three_steps_are_those_of_the_method_written_out",
    "datasets": "data/test_source.py::test_names_as_designed",
    "experiment logging": "test_tracking.py::test_every_metric_arrives_at_its_step",
}
# Rows of that table that are no behaviour, and where they are; weights are not published here.
ELSEWHERE = {
    "pip package": "pyproject.toml",
    "tests": "tests",
    "published accuracy": "docs/results.md",
    "pretrained weights": None,
    "licence file": "LICENSE",
}

NAMED = sorted({*(name for names in DEFECTS.values() for name in names), *FEATURES.values()})


@pytest.mark.parametrize("name", NAMED)
def test_what_is_named_is_a_test(name: str) -> None:
    file, function = name.split("::")
    tree = ast.parse((TESTS / file).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_seed_has_defects_and_every_place_exists() -> None:
    assert {key[:3] for key in DEFECTS} == {"000", "001", "002", "003", "004"}
    assert all((PROJECT / place).exists() for place in ELSEWHERE.values() if place is not None)


def numbered(notes: str) -> set[str]:
    """Return the defects that the notes number: (1), 1. or, of several processes, (a)."""
    found = set()
    for system, text in re.findall(r"^## \d\. SEED (\d{3})(.*?)^---$", notes, re.DOTALL | re.MULTILINE):
        listed = re.split(r"\*\*(?:Bugs|Fatal bugs|Distributed)\*\*", text, maxsplit=1)[-1]
        numbers = re.findall(r"(?:^|\s)\((\d{1,2}|[a-d])\) |(?:^|\s)(\d{1,2})\. ", listed)
        found |= {f"{system}.{bracketed or plain}" for bracketed, plain in numbers}
    return found


@pytest.mark.skipif(not NOTES.is_file(), reason="the notes on the other systems are not here")
def test_nothing_that_the_notes_number_is_left_out() -> None:
    ids = {key.split()[0] for key in DEFECTS}
    assert numbered(NOTES.read_text()) == {key for key in ids if not key.endswith("-")}


@pytest.mark.skipif(not NOTES.is_file(), reason="the notes on the other systems are not here")
def test_no_row_of_their_table_is_left_out() -> None:
    table = NOTES.read_text().split("\n## 12.")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE)
    assert rows[0] == "feature" and {*rows[1:]} == FEATURES.keys() | ELSEWHERE.keys()
