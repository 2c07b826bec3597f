"""What five BYOL systems can be told, and what they do by default."""

import re

# Every option that these systems document, or have, by what it belongs to, and its default: two where what is
# documented, coded and shipped differs.
OPTIONS = {
    "000": {
        "": """--image_size 224, --learning_rate 3e-4, --batch_size 42 or 192, --num_epochs 100,
            --resnet_version resnet18, --checkpoint_epochs 10 or 5, --dataset_dir ./datasets, --num_workers 8,
            --nodes 1, --gpus 1, --nr 0""",
        "the regression": """--model_path required, --image_size 224, --learning_rate 3e-3, --batch_size 768,
            --num_epochs 300, --resnet_version resnet18, --checkpoint_epochs 10, --dataset_dir ./datasets,
            --num_workers 8""",
        "BYOL": """net required, image_size required, hidden_layer -2, projection_size 256,
            projection_hidden_size 4096, augment_fn None, moving_average_decay 0.99, update_moving_average(),
            reset_moving_average()""",
        "forward": "image_one required, image_two required",
    },
    "001": {
        "": """batch_size 32, num_workers 32, using_pixpro True, num_of_gpus all, image_folder_path required,
            backbone resnet34""",
        "PixelCL": """net required, image_size required or 256, hidden_layer_pixel -2 or layer4,
            hidden_layer_instance -2, projection_size 256, projection_hidden_size 2048, augment_fn None,
            augment_fn2 None, prob_rand_hflip 0.25, moving_average_decay 0.996 or 0.99, ppm_num_layers 1,
            ppm_gamma 2, distance_thres 0.7, similarity_temperature 0.3, alpha 1, use_pixpro True,
            cutout_ratio_range (0.6, 0.8), cutout_interpolate_mode nearest,
            coord_cutout_interpolate_mode bilinear, len_dataloader None, update_moving_average(),
            reset_moving_average(), finetuning()""",
        "forward": "x required, return_positive_pairs False",
        "the trainer": "gpus all, auto_select_gpus True, strategy ddp, sync_batchnorm True, max_epochs 250",
        "Adam": "lr 1e-4, weight_decay 1.5e-6",
        "CosineAnnealingLR": "T_max len_dataloader",
    },
    "002": {
        "": "SEM",
        "BYOL": """net required, image_size required, hidden_layer -2, projection_size 256,
            projection_hidden_size 4096, augment_fn None, augment_fn2 None, moving_average_decay 0.99,
            use_momentum True, sync_batchnorm None, use_simplicial_embeddings True, sem_num_simplices 32,
            sem_simplex_dim 8, sem_temperature 0.1, update_moving_average(), reset_moving_average()""",
        "forward": "x required, return_embedding False, return_projection True",
        "BYOLTrainer": """net required, image_size required, hidden_layer required, learning_rate required,
            dataset required, num_train_steps required, batch_size 16, optimizer_klass Adam,
            checkpoint_every 1000, checkpoint_folder ./checkpoints, byol_kwargs {}, optimizer_kwargs {},
            accelerator_kwargs {}""",
        "MockDataset": "image_size required, length required",
        "the Lightning example": """--image_folder required, BATCH_SIZE 32, EPOCHS 1000, LR 3e-4, NUM_GPUS 2,
            IMAGE_SIZE 256, NUM_WORKERS all, IMAGE_EXTS .jpg, accumulate_grad_batches 1,
            sync_batchnorm True""",
    },
    "003": {
        "BYOL": """base_model required, image_size 32, projection_hidden_size 4096, projection_size 256,
            moving_avg_decay 0.99, update_target_network()""",
        "forward": "x required, get_embedding False",
        "train_byol": """model required, train_dl required, optimizer required, epochs required,
            device required""",
        "SimCLR_Transforms": "image_size 32, normalize True",
        "the experiment": "BATCH_SIZE 128, epochs 50, lr 1e-4",
    },
    "004": {
        "": """--run-type required, --model-output-folder-path none, --dataset-path required,
            --dataset-type required, --model-path none or required, --num-workers 0, --gpu none or required,
            --mlflow-tracking-uri none, --mlflow-experiment-name byol_experiment, --mlflow-run-id none,
            --resume-training off, --model-param-file-path parameters/model_params.yaml,
            --run-param-file-path required, --seed none, encoder_model resnet50 or resnet18,
            num_projection_layers 0, projection_size 128 or 256, projection_hidden_layer_size 128 or 4096,
            input_height 224 or 32, input_width 224 or 32, base_ema_tau 0.996 or 0.99, name byol_model,
            batch_size 512, num_epochs 500, checkpoint_every 250, percent_data_to_use 1.0,
            cosine_annealing True, warmup_epochs 10, augmentation_params, view_1, view_2, resize_crop,
            random_flip, colour_jitter, colour_drop, gaussian_blur, solarize""",
        "optimiser_params": "type adam, lr 3e-4, weight_decay 1.5e-6, momentum none, nesterov none",
        "an operation": "apply_probability 0",
        "colour_jitter": "brightness_delta 0.4, contrast_delta 0.4, saturation_delta 0.2, hue_delta 0.1",
        "gaussian_blur": "kernel_size (3, 3), sigma (0.1, 2.0)",
        "solarize": "threshold 0.5",
        "normalise": "mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)",
        "fine-tuning": """freeze_encoder False, learning_rate 0.005, momentum 0.9, batch_size 256,
            num_epochs 30, checkpoint_every 15, percent_data_to_use 1.0, percent_train_to_use_as_val 0.1,
            validate_every 1, num_classes 10, print_every 50""",
        "evaluation": "batch_size 1",
    },
}  # fmt: skip


def split_at_commas(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    return [part.strip() for part in re.split(r",\s(?![^(]*\))", text)]


def known_options(system: str) -> dict[tuple[str, str], str]:
    """Return a system's options, by owner and name, with their defaults: `42`, or `42 or 192`."""
    found: dict[tuple[str, str], str] = {}
    for home, text in OPTIONS[system].items():
        for item in split_at_commas(" ".join(text.split())):
            name, _, default = item.partition(" ")
            found[home, name] = default
    return found
