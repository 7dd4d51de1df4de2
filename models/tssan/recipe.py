"""Recipes: everything that a training run is made of, in one YAML file with its reasons.

A recipe has three parts, one dataclass each: how clips are cut (`ClipsRecipe`), what the network is
(`NetworkRecipe`) and how it is trained (`TrainingRecipe`). The values that the paper states are the
defaults; [S] marks them below, [C] marks a choice that the paper leaves open.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tssan.errors import DataError
from tssan.tables import INDEX, recipe_aliases
from tssan.yaml_text import parse_yaml

SHIPPED = INDEX.parent


@dataclass(frozen=True)
class ClipsRecipe:
    """How a skeleton sequence becomes clips.

    Attributes
    ----------
    frames
        Frames of one clip, F [S: 32; Kinetics 64].
    segments
        Clips per sequence, K [S: 3; 1 is the plain SAN].
    persons
        Persons per sequence, the first ones of the file; missing ones are zeros [S: 2].
    centre
        ``first_frame``: the origin is the centre joint of the first person in its first frame, so
        that walking stays visible; ``per_frame``: in every frame; ``path``: as ``first_frame`` for
        the centre joints, and the other joints are measured from the centre joint of their own
        person and frame, so that going and moving the limbs are told apart; ``none``
        [C: first_frame, as some actions differ by where one goes].
    align
        ``yaw``: turn about the vertical until the shoulders lie along x; ``spine_shoulder``: turn
        the spine upright too, as 2s-AGCN's pre-normalisation does; ``none`` [C: spine_shoulder,
        worth about 2 points with the same front end (HCN)].
    scale
        ``torso``: measure in lengths of the first person's torso; ``none``: in the data's own units
        [C: none, as no relative of the network scales].
    motion_scale
        Factor on the motion, which in metres per frame is far smaller than the positions [C: 1, as
        nothing of it is said].
    train_crop
        Least and greatest share of a sequence that is seen in training [S: 0.5 to 1].
    test_crop
        Share in the middle of a sequence that is seen in a test [S: 0.9].
    averaged_crops
        Shares that a test sees besides, of each the beginning, the middle and the end; the
        probabilities of all crops are averaged. What is recorded is the pass of `test_crop`
        [S: none].
    min_crop_frames
        No training crop is shorter than so many source frames, if the sequence has them [C: 64, as
        both public HCN data paths do].
    rotate
        Greatest turn about x and about y in training, in radians [C: the paper has none].
    turn
        Greatest further turn about the vertical y, in radians, for sensors that look from many
        sides and for shoulders that tell the yaw badly [C: the paper has none].
    rescale
        Greatest relative change of size in training [C: the paper has none].
    shear
        Greatest entry of the random matrix that is added to the identity, which stands in for
        bodies of other build [C: the paper has none].
    mirror
        Share of the training clips in which left and right are changed about. Not for classes that
        differ in nothing else, such as swiping left and right [C: the paper has none].
    noise
        Standard deviation of what is added to the place of each joint, the same in all frames, in
        the units that `scale` leaves [C: the paper has none].
    lose_joints
        Share of the joints that lie in the origin during a whole training clip, for sensors that
        lose or misplace what is hidden [C: the paper has none].
    warp
        Greatest unevenness of time in training: 0 resizes evenly, at 1 the source frames are as
        uneven as times drawn at random and put in order [C: the paper has none].
    score_as_coordinate
        Append the pose estimator's score to the coordinates; (x, y, score) on Kinetics [S].
    """

    frames: int = 32
    segments: int = 3
    persons: int = 2
    centre: str = "first_frame"
    align: str = "spine_shoulder"
    scale: str = "none"
    motion_scale: float = 1.0
    train_crop: tuple[float, float] = (0.5, 1.0)
    test_crop: float = 0.9
    averaged_crops: tuple[float, ...] = ()
    min_crop_frames: int = 64
    rotate: float = 0.0
    turn: float = 0.0
    rescale: float = 0.0
    shear: float = 0.0
    mirror: float = 0.0
    noise: float = 0.0
    lose_joints: float = 0.0
    warp: float = 0.0
    score_as_coordinate: bool = False

    def __post_init__(self) -> None:
        _at_least(self, 1, "frames", "segments", "persons")
        _at_least(self, 0, "min_crop_frames", "rotate", "turn", "noise")
        _one_of(self, "centre", ("first_frame", "per_frame", "path", "none"))
        _one_of(self, "align", ("yaw", "spine_shoulder", "none"))
        _one_of(self, "scale", ("torso", "none"))
        _above(self, 0, "motion_scale")
        low, high = self.train_crop
        if not 0 < low <= high <= 1:
            raise DataError(
                f"train_crop: [{low}, {high}] is no range of shares; give [low, high] with "
                "0 < low ≤ high ≤ 1, such as [0.5, 1.0]"
            )
        if not 0 < self.test_crop <= 1:
            raise DataError(f"test_crop: {self.test_crop} is no share; give 0 < share ≤ 1")
        for share in self.averaged_crops:
            if not 0 < share <= 1:
                raise DataError(f"averaged_crops: {share} is no share; give 0 < share ≤ 1")
        if not 0 <= self.rescale < 1:
            raise DataError(f"rescale: {self.rescale} is no change of size; give 0 ≤ change < 1")
        # Three entries below a third cannot turn a body inside out.
        if not 0 <= self.shear < 1 / 3:
            raise DataError(f"shear: {self.shear} may flatten a body; give 0 ≤ shear < 1/3")
        for name in ("mirror", "lose_joints", "warp"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"{name}: {getattr(self, name)} is no share; give 0 ≤ share ≤ 1")


@dataclass(frozen=True)
class NetworkRecipe:
    """What the network is.

    Attributes
    ----------
    variant
        ``san-v1``: persons side by side and motion beside position from the start; ``san-v2``:
        position and motion of each person through one block, the persons joined at the end;
        ``san-v3``: a block for positions, one for motions [S: all three, san-v2 the best of them];
        ``hcn``: the convolutional network whose front end they share, to check the data path.
    encoder
        ``cnn`` or ``ff`` [S: both, cnn the better].
    layers, heads
        Of the self-attention block [S: 4 and 8; Kinetics 8 and 8].
    width
        Width d of the block. None: the encoder's own, 1024 in SAN-V2, else 512 [S]; a number: the
        encoder's features are projected to it first, for data sets too small for 55 million
        parameters [C].
    feed_forward
        Inner width of the feed-forward networks in multiples of d [C: 4, as in the Transformer].
    norm
        ``post``: a norm on each sum [S]; ``pre``: a norm before each half, which trains at learning
        rates where post-norm diverges without warm-up [C].
    position_embedding
        ``learned``, as in the BERT whose vocabulary the paper uses, or ``sinusoidal`` [C].
    encoder_relu
        Where the cnn encoder has a ReLU. ``first``: only after the first convolution, as HCN's
        implementations have it; ``all`` [C: the paper's figure shows none of the places].
    encoder_batch_norm
        Whether the cnn encoder normalises after each convolution [C: no, as HCN's implementations
        at their best].
    ff_dim, ff_layers
        Width and number of the linear layers of the ff encoder [C: 512 and 1, so that the block is
        as wide as with cnn and only the encoders are compared].
    encoder_dropout, dropout, classifier_dropout
        After the encoder [S: 0.5], in the block [S: 0.2], before the classifier [S: 0.5].
    mask_absent_person
        Leave absent persons out of the maximum over persons. The paper does not: a zero skeleton
        enters with the features that the biases give it [C: no, as nothing of it is said].
    v3_person_fusion
        Where SAN-V3 takes the maximum over persons: ``pre``, of the encoded features, or ``post``,
        of what the blocks give [C: pre, as the text has it before the block's input].
    v3_score
        What a test of SAN-V3 counts by: ``fused``, the classifier of both streams, or ``mean`` of
        the three softmaxes [C: fused; the paper trains three and does not say].
    consensus
        How the predictions of the segments are joined: ``avg`` or ``max`` [S: avg].
    consensus_of
        What is averaged: ``logits``, before the softmax, as in TSN's code, or ``probabilities``
        [C: logits].
    """

    variant: str = "san-v2"
    encoder: str = "cnn"
    layers: int = 4
    heads: int = 8
    width: int | None = None
    feed_forward: int = 4
    norm: str = "post"
    position_embedding: str = "learned"
    encoder_relu: str = "first"
    encoder_batch_norm: bool = False
    ff_dim: int = 512
    ff_layers: int = 1
    encoder_dropout: float = 0.5
    dropout: float = 0.2
    classifier_dropout: float = 0.5
    mask_absent_person: bool = False
    v3_person_fusion: str = "pre"
    v3_score: str = "fused"
    consensus: str = "avg"
    consensus_of: str = "logits"

    def __post_init__(self) -> None:
        _one_of(self, "variant", ("san-v1", "san-v2", "san-v3", "hcn"))
        _one_of(self, "encoder", ("cnn", "ff"))
        _one_of(self, "norm", ("post", "pre"))
        _one_of(self, "position_embedding", ("learned", "sinusoidal"))
        _one_of(self, "encoder_relu", ("first", "all"))
        _one_of(self, "v3_person_fusion", ("pre", "post"))
        _one_of(self, "v3_score", ("fused", "mean"))
        _one_of(self, "consensus", ("avg", "max"))
        _one_of(self, "consensus_of", ("logits", "probabilities"))
        _at_least(self, 1, "layers", "heads", "feed_forward", "ff_dim", "ff_layers")
        for name in ("encoder_dropout", "dropout", "classifier_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise DataError(f"{name}: {getattr(self, name)} is no share; give 0 ≤ share < 1")
        if self.consensus == "max" and self.consensus_of == "probabilities":
            raise DataError(
                "consensus_of: the greatest probabilities of several segments do not add up to 1; "
                "give consensus: avg, or consensus_of: logits"
            )
        self._refuse_what_is_not_read()
        if self.variant == "hcn":
            return
        if self.width is not None:
            _at_least(self, 1, "width")
        if self.block_width % 2:
            name = "ff_dim" if self.width is None else "width"
            raise DataError(
                f"{name}: {getattr(self, name)} is odd; sines and cosines come in pairs"
            )
        if self.block_width % self.heads:
            raise DataError(
                f"heads: {self.heads} does not divide the width {self.block_width}; "
                "every head takes an equal share"
            )

    @property
    def encoder_width(self) -> int:
        """Features per frame that one encoder gives; the cnn's are 64 filters × 8 columns."""
        return self.ff_dim if self.encoder == "ff" else 512

    @property
    def block_width(self) -> int:
        """Width d of a self-attention block."""
        streams = 2 if self.variant == "san-v2" else 1
        return self.width or streams * self.encoder_width

    @property
    def unread(self) -> frozenset[str]:
        """The fields that this variant with this encoder has no use for."""
        if self.variant == "hcn":
            read = {"variant", "encoder_dropout", "classifier_dropout", "mask_absent_person"}
            read |= {"consensus", "consensus_of"}
            return frozenset(type(self).__dataclass_fields__) - read
        names = (
            {"ff_dim", "ff_layers"}
            if self.encoder == "cnn"
            else {"encoder_relu", "encoder_batch_norm"}
        )
        if self.variant != "san-v3":
            names |= {"v3_person_fusion", "v3_score"}
        if self.variant == "san-v1":
            names |= {"mask_absent_person"}  # the persons are joined before anything else
        return frozenset(names)

    def _refuse_what_is_not_read(self) -> None:
        for name, entry in type(self).__dataclass_fields__.items():
            if name in self.unread and getattr(self, name) != entry.default:
                encoder = "" if self.variant == "hcn" else f" with the {self.encoder} encoder"
                raise DataError(
                    f"{name}: {getattr(self, name)} would change nothing; "
                    f"{self.variant}{encoder} does not read it"
                )


@dataclass(frozen=True)
class TrainingRecipe:
    """How the network is trained.

    Attributes
    ----------
    epochs
        Passes over the training part [S: 200 on NTU RGB+D, 100 on Kinetics].
    batch_size
        Sequences per step [S: 64].
    optimizer
        ``adam`` [S], whose weight decay is coupled, or ``adamw``, whose is not.
    learning_rate
        The highest one [C: 1e-4; the paper's is not known, and at the 1e-3 of its relatives a
        post-norm block of this width is unstable without warm-up].
    weight_decay
        [C: 1e-4, as in all public relatives of the network].
    schedule
        ``plateau``: times `plateau_factor` after `plateau_epochs` epochs without a better
        validation accuracy [S]; ``one_cycle``: up and down to nothing once; ``cosine``: down to
        nothing along half a cosine; ``constant``.
    plateau_factor, plateau_epochs
        [S: 0.5 and 5].
    warmup_epochs
        So many epochs at the beginning raise the learning rate step by step from nothing; with
        ``cosine`` and ``constant`` only, since one-cycle has a warm-up of its own [C: none].
    label_smoothing
        Share of the target that is spread over all classes [S: none].
    mixup
        Every clip is mixed with another of its batch, λ of the one and 1 − λ of the other, and so
        are their targets; λ is drawn from Beta(mixup, mixup) for each batch (Zhang et al., *mixup*,
        2018); 0: nothing is mixed [S: none].
    clip_gradient
        Greatest norm of the gradient; None: any [C: none stated].
    validation
        Share of the training part that is held out of training, stratified by class; 0: none. The
        held-out sequences come from the training subjects, never from the test set [C].
    validation_subjects
        Hold out all that these training subjects do instead of a share, so that selection looks at
        people who are not fitted, as the test does; `validation` is not read then [C: none].
    select_on
        ``validation``: the schedule and `keep` look at the held-out part; ``test``: they look at
        the test part and nothing is held out, as the literature does. The number that comes out is
        too high, and labelled wherever it appears [C: the paper does not say].
    keep
        ``best``: the weights of the epoch with the highest validation accuracy, of equals the last;
        ``last``: those after the last epoch, where a one-cycle schedule has come to rest [C].
    """

    epochs: int = 200
    batch_size: int = 64
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    schedule: str = "plateau"
    plateau_factor: float = 0.5
    plateau_epochs: int = 5
    warmup_epochs: int = 0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    clip_gradient: float | None = None
    validation: float = 0.05
    validation_subjects: tuple[int, ...] = ()
    select_on: str = "validation"
    keep: str = "best"

    def __post_init__(self) -> None:
        _at_least(self, 1, "epochs", "batch_size", "plateau_epochs")
        _at_least(self, 0, "weight_decay", "warmup_epochs", "mixup")
        _above(self, 0, "learning_rate")
        _one_of(self, "optimizer", ("adam", "adamw"))
        _one_of(self, "schedule", ("plateau", "one_cycle", "cosine", "constant"))
        _one_of(self, "select_on", ("validation", "test"))
        _one_of(self, "keep", ("best", "last"))
        if not 0 < self.plateau_factor < 1:
            raise DataError(f"plateau_factor: {self.plateau_factor} must lie between 0 and 1")
        if not 0 <= self.label_smoothing < 1:
            raise DataError(f"label_smoothing: {self.label_smoothing} must be 0 ≤ share < 1")
        if self.clip_gradient is not None:
            _above(self, 0, "clip_gradient")
        if not 0 <= self.validation < 1:
            raise DataError(f"validation: {self.validation} is no share; give 0 ≤ share < 1")
        if self.warmup_epochs and self.schedule not in ("cosine", "constant"):
            raise DataError(
                f"warmup_epochs: {self.warmup_epochs} does not go with `schedule: "
                f"{self.schedule}`; "
                "give `cosine` or `constant`, or leave it at 0"
            )
        if self.warmup_epochs >= self.epochs:
            raise DataError(
                f"warmup_epochs: {self.warmup_epochs} leaves nothing of {self.epochs} epochs; "
                "give fewer"
            )
        if self.select_on == "test" and self.validation_subjects:
            raise DataError(
                "validation_subjects: `select_on: test` holds nobody out; leave one of them out"
            )
        looks_at_nothing = (
            self.validation == 0 and not self.validation_subjects and self.select_on != "test"
        )
        if looks_at_nothing and (self.keep == "best" or self.schedule == "plateau"):
            raise DataError(
                "validation: 0 holds nothing out, but `keep: best` and `schedule: plateau` look at "
                "the validation accuracy; give a share such as 0.05, or `keep: last` with another "
                "schedule"
            )

    @property
    def selection(self) -> str:
        """What was looked at to choose between epochs or to lower the learning rate, in words."""
        if self.select_on == "test":
            return "selected on the test part, as the paper's protocol does"
        if self.keep != "best" and self.schedule != "plateau":
            return "nothing selected: the last epoch is kept"
        if self.validation_subjects:
            who = ", ".join(map(str, self.validation_subjects))
            return f"selected on held-out training subjects: {who}"
        return "selected on a held-out part of the training subjects"


@dataclass(frozen=True)
class Recipe:
    """A whole training run but for data and seed.

    Attributes
    ----------
    name
        What the run is called in tables and pictures.
    protocol
        Which division into training and test subjects; None: the data set's first.
    clips, network, training
        The three parts.
    """

    name: str
    protocol: str | None = None
    clips: ClipsRecipe = field(default_factory=ClipsRecipe)
    network: NetworkRecipe = field(default_factory=NetworkRecipe)
    training: TrainingRecipe = field(default_factory=TrainingRecipe)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values, ready for YAML or JSON."""
        values = dataclasses.asdict(self)
        values["clips"]["train_crop"] = list(self.clips.train_crop)
        values["training"]["validation_subjects"] = list(self.training.validation_subjects)
        return values


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that come with the package, without their aliases."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml") if path != INDEX))


def recipe_path(name_or_path: str | Path) -> Path:
    """Return the file of a shipped recipe, or the given path of a YAML file.

    Parameters
    ----------
    name_or_path
        ``utd-mhad``, another name of a shipped recipe (``t6_ts-san-v2-l4h8``), or the path of a
        file that ends in .yaml or .yml.

    Raises
    ------
    DataError
        No shipped recipe is called so; the message gives the nearest name.
    """
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return path
    name = recipe_aliases().get(str(name_or_path), str(name_or_path))
    if name not in recipe_names():
        near = _nearest(name, (*recipe_names(), *recipe_aliases()))
        # Those of the paper's tables are called t1_… to t6_….
        own = [known for known in recipe_names() if "_" not in known]
        raise DataError(
            f"no recipe is called {name!r}{near}; there are {', '.join(own)} and "
            f"{len(recipe_names()) - len(own)} more, which `tssan-viz describe` lists; or give the "
            "path of a .yaml file"
        )
    return SHIPPED / f"{name}.yaml"


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe by the name of a shipped one, or from a YAML file.

    Parameters
    ----------
    name_or_path
        As in `recipe_path`.

    Returns
    -------
    Recipe
        Checked: every key is known, every value has its type and its range.

    Raises
    ------
    DataError
        There is no such recipe, or a key or a value in it is wrong; the message names the file, the
        key, and what would be right.
    """
    path = recipe_path(name_or_path)
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: the recipe cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the recipe is not UTF-8 text: {error}") from None
    except ValueError as error:
        raise DataError(f"{path}: the recipe is not YAML: {error}") from None
    return recipe_from_dict(values, source=str(path))


def override(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Return the recipe with some of its values replaced, as ``--set`` does.

    Parameters
    ----------
    recipe
        Stays as it is.
    settings
        Each ``part.field=value``, such as ``network.heads=4``; the value is written as in YAML.
        They are checked together, so that two that only fit each other can be given in any order.

    Returns
    -------
    Recipe
        Checked like one that was read from a file.

    Raises
    ------
    DataError
        A setting has another form, an unknown field, or a value that does not fit.
    """
    values = recipe.to_dict()
    for setting in settings:
        key, equals, text = setting.partition("=")
        *way, name = key.strip().split(".")
        target: Any = values
        for step in way:
            if not isinstance(target.get(step), dict):
                near = _nearest(step, [part for part in target if isinstance(target[part], dict)])
                raise DataError(f"--set {setting}: the recipe has no part {step}{near}")
            target = target[step]
        if not equals or isinstance(target.get(name), dict):
            raise DataError(f"--set {setting}: write part.field=value, such as network.heads=4")
        if name not in target:
            near = _nearest(name, list(target))
            everywhere = [
                f"{part}.{name}" for part, inner in values.items() if name in _keys(inner)
            ]
            if not way and everywhere:
                near = f" (did you mean {everywhere[0]}?)"
            raise DataError(f"--set {setting}: unknown key {key.strip()}{near}")
        try:
            target[name] = parse_yaml(text)
        except ValueError as error:
            raise DataError(f"--set {setting}: the value is not YAML: {error}") from None
        if isinstance(target[name], str):
            with suppress(ValueError):  # 1e-3, a word to YAML, is meant as a number at the prompt
                target[name] = float(text)
    return recipe_from_dict(values, source=" ".join(f"--set {setting}" for setting in settings))


def _keys(values: Any) -> Sequence[str]:
    return tuple(values) if isinstance(values, dict) else ()


def recipe_from_dict(values: Any, *, source: str) -> Recipe:
    """Build a recipe from plain values; `source` is the file that errors name."""
    try:
        recipe = _build(Recipe, values, "")
    except DataError as error:
        raise DataError(f"{source}: {error}") from None
    assert isinstance(recipe, Recipe)
    return recipe


def _build(cls: type, values: Any, where: str) -> Any:
    """Fill a dataclass from a mapping; `where` is the dotted key that led here."""
    if not isinstance(values, Mapping):
        raise DataError(f"{where[:-1] or 'the recipe'} must be a mapping of keys, not {values!r}")
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            raise DataError(
                f"unknown key {where}{key}{_nearest(str(key), tuple(hints))}"
                f"; known are {', '.join(hints)}"
            )
        wanted = hints[key]
        if dataclasses.is_dataclass(wanted):
            assert isinstance(wanted, type)
            arguments[key] = _build(wanted, value, f"{where}{key}.")
        else:
            arguments[key] = _typed(value, wanted, f"{where}{key}")
    missing = [
        name
        for name, entry in cls.__dataclass_fields__.items()  # type: ignore[attr-defined]
        if name not in arguments
        and entry.default is dataclasses.MISSING
        and entry.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise DataError(f"the key {where}{missing[0]} is missing")
    try:
        return cls(**arguments)
    except DataError as error:
        raise DataError(f"{where}{error}") from None


def _typed(value: Any, wanted: Any, where: str) -> Any:
    """Return `value` as the type that a field asks for; whole numbers may stand for floats."""
    options = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    for option in options:
        if option is type(None) and value is None:
            return None
        # Comparing refuses not-a-number too, and a whole number that no float can hold.
        if option is float and _is_number(value) and abs(value) <= sys.float_info.max:
            return float(value)
        if option is int and _is_number(value) and isinstance(value, int):
            return value
        if option in (bool, str) and isinstance(value, option):
            return value
        if (
            typing.get_origin(option) is tuple
            and isinstance(value, Sequence)
            and not isinstance(value, str)
        ):
            kinds_inside = typing.get_args(option)
            if kinds_inside[-1] is Ellipsis:
                return tuple(_typed(one, kinds_inside[0], where) for one in value)
            if len(value) == len(kinds_inside):
                return tuple(
                    _typed(one, kind, where) for one, kind in zip(value, kinds_inside, strict=True)
                )
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    kinds = " or ".join(
        "null"
        if option is type(None)
        else "a list of whole numbers"
        if option == tuple[int, ...]
        else names.get(option, "a list of two numbers")
        for option in options
    )
    hint = ""
    if isinstance(value, str) and float in options:
        hint = " (YAML takes 1e-3 for a word; write 1.0e-3 or 0.001)"
    raise DataError(f"{where}: {value!r} must be {kinds}{hint}")


def _is_number(value: Any) -> bool:
    """Tell numbers from everything else; to Python true and false are numbers too."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _one_of(recipe: object, name: str, known: Sequence[str]) -> None:
    value = getattr(recipe, name)
    if value not in known:
        choices = f"there are {', '.join(known)}" if len(known) > 1 else f"there is {known[0]}"
        raise DataError(f"{name}: {value!r} does not exist{_nearest(str(value), known)}; {choices}")


def _at_least(recipe: object, least: float, *names: str) -> None:
    for name in names:
        if not getattr(recipe, name) >= least:
            raise DataError(f"{name}: {getattr(recipe, name)} must be at least {least}")


def _above(recipe: object, bound: float, *names: str) -> None:
    for name in names:
        if not getattr(recipe, name) > bound:
            raise DataError(f"{name}: {getattr(recipe, name)} must be more than {bound}")
