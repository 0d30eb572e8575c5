"""The files into which `mutate_programs.py` plants bugs, and the tests of each: what pytest is given."""

_NEW_LAYERS = "tests/test_fine_tuning.py::test_frozen_layers_get_no_step_and_no_decay_and_the_new_one_its_own_rate"
# What notices most stands first.
TESTS = {
    "alexnet_io/run/loop.py": ["tests/test_training_loop.py"],
    "alexnet_io/run/run_log.py": ["tests/test_run_parts.py", "tests/test_training_loop.py"],
    "alexnet_io/run/saving.py": ["tests/test_run_parts.py", "tests/test_training_loop.py"],
    "alexnet_io/run/directory_lock.py": ["tests/test_io_run_directory.py"],
    "alexnet_io/run/state.py": ["tests/test_run_parts.py", "tests/test_training_loop.py"],
    "alexnet_io/run/speed_meter.py": ["tests/test_run_parts.py", "tests/test_training_loop.py"],
    "alexnet_io/run/data_identity.py": ["tests/test_run_parts.py", "tests/test_training_loop.py"],
    "alexnet_io/data/batches.py": ["tests/test_data_batches.py", "tests/test_draws.py", "-k", "not jax and not torch"],
    "alexnet_io/run/evaluation.py": ["tests/test_io_evaluation.py"],
    "alexnet_io/run/metrics.py": ["tests/test_io_metrics.py"],
    "alexnet_io/run/flat_loss.py": ["tests/test_io_flat_loss.py"],
    "jax_alexnet/engine.py": [
        "tests/test_engines.py",
        "tests/test_schedules.py",
        "tests/test_warmup_cosine.py",
        "tests/test_cli_train.py",
    ],
    "jax_alexnet/steps.py": [
        "tests/test_jax_steps.py",
        "tests/test_draws_in_steps.py",
        "tests/test_step_options.py",
        "-k",
        "not torch",
    ],
    "jax_alexnet/schedules.py": [
        "tests/test_schedules.py",
        "tests/test_jax_schedules.py",
        "tests/test_warmup_cosine.py",
    ],
    "jax_alexnet/optim.py": ["tests/test_jax_optim.py", "tests/test_step_options.py", _NEW_LAYERS],
    "jax_alexnet/augment.py": ["tests/test_augment.py", "tests/test_draws.py", "-k", "jax or not torch"],
    "jax_alexnet/evaluation.py": ["tests/test_jax_evaluation.py"],
    "jax_alexnet/files/checkpoint.py": ["tests/test_checkpoint.py", "tests/test_checkpoint_faults.py"],
    "jax_alexnet/files/checkpoint_arrays.py": ["tests/test_checkpoint.py", "tests/test_checkpoint_faults.py"],
    "jax_alexnet/files/checkpoint_files.py": ["tests/test_checkpoint.py", "tests/test_checkpoint_faults.py"],
    "torch_ref/engine.py": [
        "tests/test_engines.py",
        "tests/test_schedules.py",
        "tests/test_warmup_cosine.py",
        "tests/test_torch_train.py",
    ],
    "torch_ref/steps.py": ["tests/test_torch_steps.py", "tests/test_draws_in_steps.py", "-k", "not jax"],
    "torch_ref/schedules.py": [
        "tests/test_schedules.py",
        "tests/test_torch_optim.py",
        "tests/test_torch_recipes.py",
        "tests/test_warmup_cosine.py",
    ],
    "torch_ref/optim.py": [
        "tests/test_torch_optim.py",
        _NEW_LAYERS,
        "tests/test_step_options.py::test_gradients_are_clipped_to_the_limit_itself",
        "tests/test_step_options.py::test_a_gradient_that_is_no_number_stays_none",
        "tests/test_warmup_cosine.py::test_pytorchs_plateau_keeps_its_rate_through_a_step_of_the_warmup",
    ],
    "torch_ref/augment.py": ["tests/test_augment.py", "tests/test_draws.py", "-k", "torch or not jax"],
    "torch_ref/dropout_masks.py": ["tests/test_draws.py", "tests/test_draws_in_steps.py", "-k", "torch and not order"],
    "torch_ref/checkpoint.py": ["tests/test_torch_train.py", "-k", "checkpoint or goes_on"],
}
