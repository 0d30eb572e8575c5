"""The PyTorch reference's recipes against the figures."""

import facts
import pytest

from alexnet_io.errors import UserError
from torch_ref.recipes import RECIPES, MeanImage, PerChannel, recipe_for
from torch_ref.schedules import Constant, EveryEpochs, EverySteps, Milestones, Plateau, learning_rate


def test_names() -> None:
    assert set(RECIPES) == {*facts.RECIPES, "cifar"}
    assert all(recipe.name == name for name, recipe in RECIPES.items())


@pytest.mark.parametrize("name", facts.RECIPES)
def test_figures(name: str) -> None:
    expected, recipe = facts.RECIPES[name], RECIPES[name]
    assert recipe.batch_size == expected.batch
    assert recipe.learning_rate == expected.learning_rate
    assert recipe.momentum == (expected.momentum or 0.0)
    assert recipe.weight_decay == expected.weight_decay
    assert recipe.bias_lr_multiplier == expected.bias_rate
    assert recipe.decay_biases == expected.biases_decay
    assert recipe.epochs == expected.epochs
    assert (recipe.epochs is None) != (recipe.iterations is None)


def test_optimizers_and_schedules() -> None:
    kinds = {name: (recipe.optimizer, type(recipe.schedule)) for name, recipe in RECIPES.items()}
    assert kinds == {
        "blog": ("adam", Constant),
        "paper": ("momentum_inside", Plateau),
        "caffe": ("momentum_inside", EverySteps),
        "torchvision": ("sgd", EveryEpochs),
        "cifar": ("momentum_inside", Milestones),
    }
    paper = RECIPES["paper"].schedule
    assert isinstance(paper, Plateau)
    assert paper.factor == 0.1


def test_rates_over_whole_runs() -> None:
    caffe = RECIPES["caffe"]
    assert caffe.iterations == facts.CAFFE_MAX_ITERATIONS
    for step, rate in [(0, 1e-2), (99_999, 1e-2), (100_000, 1e-3), (399_999, 1e-5), (400_000, 1e-6)]:
        assert learning_rate(caffe.schedule, caffe.learning_rate, epoch=0, step=step) == pytest.approx(rate, rel=1e-14)
    torchvision = RECIPES["torchvision"]
    for epoch, rate in [(0, 1e-2), (29, 1e-2), (30, 1e-3), (59, 1e-3), (60, 1e-4), (89, 1e-4)]:
        found = learning_rate(torchvision.schedule, torchvision.learning_rate, epoch=epoch, step=0)
        assert found == pytest.approx(rate, rel=1e-14)


@pytest.mark.parametrize("model", facts.CIFAR_RECIPES)
def test_cifar(model: str) -> None:
    expected, recipe = facts.CIFAR_RECIPES[model], recipe_for("cifar", model)
    assert recipe.learning_rate == expected.learning_rate
    assert recipe.bias_lr_multiplier == expected.bias_rate
    assert recipe.momentum == expected.momentum
    assert recipe.batch_size == 128
    assert recipe.initialization == "variant"
    assert recipe.normalization == MeanImage()
    assert isinstance(recipe.schedule, Milestones)
    assert recipe.epochs == recipe.schedule.epochs[-1] + 10
    crops = model in facts.CIFAR_CROP
    assert recipe.augmentation.flip == crops
    assert recipe.augmentation.source_size == (32 if crops else None)
    assert recipe.augmentation.pca_noise == 0


def test_cifar_18pct_drops() -> None:
    recipe = recipe_for("cifar", "cifar_18pct")
    first, second = facts.CIFAR_18PCT_MILESTONES
    for epoch, rate in [(first - 1, 1e-3), (first, 1e-4), (second - 1, 1e-4), (second, 1e-5)]:
        found = learning_rate(recipe.schedule, recipe.learning_rate, epoch=epoch, step=0)
        assert found == pytest.approx(rate, rel=1e-14)


def test_pictures() -> None:
    assert RECIPES["torchvision"].normalization == PerChannel(facts.IMAGENET_MEAN, facts.IMAGENET_STD)
    assert RECIPES["blog"].normalization == PerChannel((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    for name in ("paper", "caffe", "cifar"):
        assert RECIPES[name].normalization == MeanImage()
    noise = {name: recipe.augmentation.pca_noise for name, recipe in RECIPES.items()}
    assert noise == {"blog": 0, "paper": 0.1, "caffe": 0, "torchvision": 0, "cifar": 0}
    sources = {name: (recipe.augmentation.source_size, recipe.augmentation.flip) for name, recipe in RECIPES.items()}
    assert sources == {
        "blog": (None, False),
        "paper": (256, True),
        "caffe": (256, True),
        "torchvision": (256, True),
        "cifar": (None, False),
    }


def test_networks_with_a_start_of_their_own_keep_it_in_their_family() -> None:
    assert recipe_for("paper", "single_column").initialization == "paper"
    assert recipe_for("paper", "cuda_convnet_2012").initialization == "variant"
    assert recipe_for("caffe", "caffe_alexnet").initialization == "caffe"
    assert recipe_for("caffe", "caffenet").initialization == "variant"
    assert recipe_for("blog", "single_column").initialization == "pytorch"
    assert recipe_for("torchvision", "one_weird_trick").initialization == "pytorch"


def test_unknown_recipe_is_refused() -> None:
    with pytest.raises(UserError, match=r"papers.*blog, paper, caffe, torchvision, cifar"):
        recipe_for("papers", "two_column")
