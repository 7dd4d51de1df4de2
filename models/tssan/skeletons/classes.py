"""The classes of each data set: label (from 0), name, code, and what else people call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from tssan.skeletons.aliases import other_names


@dataclass(frozen=True)
class ActionClass:
    """One action class: `label` counts from 0, `code` is the data set's own (A014) or empty."""

    label: int
    name: str
    code: str
    aliases: tuple[str, ...] = ()


def _classes(
    names: Sequence[str],
    numbers: Sequence[int],
    digits: int,
    aliases: Mapping[int, tuple[str, ...]],
) -> tuple[ActionClass, ...]:
    """Give `names` labels from 0; `numbers` are the data set's own, by which `aliases` go."""
    known = {label: aliases[n] for label, n in enumerate(numbers) if n in aliases}
    others = other_names(names, known)
    return tuple(
        ActionClass(label, name, f"A{number:0{digits}d}", others[label])
        for label, (name, number) in enumerate(zip(names, numbers, strict=True))
    )


_PUT_ON = ("put on jacket", "put on a jacket", "wear jacket", "donning")
_TAKE_OFF = ("take off jacket", "take off a jacket", "doffing")


def _others(name: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(other for other in names if other != name)


NTU_RGBD: tuple[ActionClass, ...] = _classes(
    (
        "drink water",
        "eat meal/snack",
        "brushing teeth",
        "brushing hair",
        "drop",
        "pickup",
        "throw",
        "sitting down",
        "standing up (from sitting position)",
        "clapping",
        "reading",
        "writing",
        "tear up paper",
        "wear jacket",
        "take off jacket",
        "wear a shoe",
        "take off a shoe",
        "wear on glasses",
        "take off glasses",
        "put on a hat/cap",
        "take off a hat/cap",
        "cheer up",
        "hand waving",
        "kicking something",
        "reach into pocket",
        "hopping (one foot jumping)",
        "jump up",
        "make a phone call/answer phone",
        "playing with phone/tablet",
        "typing on a keyboard",
        "pointing to something with finger",
        "taking a selfie",
        "check time (from watch)",
        "rub two hands together",
        "nod head/bow",
        "shake head",
        "wipe face",
        "salute",
        "put the palms together",
        "cross hands in front (say stop)",
        "sneeze/cough",
        "staggering",
        "falling",
        "touch head (headache)",
        "touch chest (stomachache/heart pain)",
        "touch back (backache)",
        "touch neck (neckache)",
        "nausea or vomiting condition",
        "use a fan (with hand or paper)/feeling warm",
        "punching/slapping other person",
        "kicking other person",
        "pushing other person",
        "pat on back of other person",
        "point finger at the other person",
        "hugging other person",
        "giving something to other person",
        "touch other person's pocket",
        "handshaking",
        "walking towards each other",
        "walking apart from each other",
        "put on headphone",
        "take off headphone",
        "shoot at the basket",
        "bounce ball",
        "tennis bat swing",
        "juggling table tennis balls",
        "hush (quite)",
        "flick hair",
        "thumb up",
        "thumb down",
        "make ok sign",
        "make victory sign",
        "staple book",
        "counting money",
        "cutting nails",
        "cutting paper (using scissors)",
        "snapping fingers",
        "open bottle",
        "sniff (smell)",
        "squat down",
        "toss a coin",
        "fold paper",
        "ball up paper",
        "play magic cube",
        "apply cream on face",
        "apply cream on hand back",
        "put on bag",
        "take off bag",
        "put something into a bag",
        "take something out of a bag",
        "open a box",
        "move heavy objects",
        "shake fist",
        "throw up cap/hat",
        "hands up (both hands)",
        "cross arms",
        "arm circles",
        "arm swings",
        "running on the spot",
        "butt kicks (kick backward)",
        "cross toe touch",
        "side kick",
        "yawn",
        "stretch oneself",
        "blow nose",
        "hit other person with something",
        "wield knife towards other person",
        "knock over other person (hit with body)",
        "grab other person's stuff",
        "shoot at other person with a gun",
        "step on foot",
        "high-five",
        "cheers and drink",
        "carry something with other person",
        "take a photo of other person",
        "follow other person",
        "whisper in other person's ear",
        "exchange things with other person",
        "support somebody with hand",
        "finger-guessing game (playing rock-paper-scissors)",
    ),
    range(1, 121),
    3,
    {
        1: ("drinking water", "drinking"),
        2: ("eat meal", "eat snack", "eating"),
        5: ("dropping",),
        6: ("pick up", "picking up"),
        7: ("throwing",),
        9: ("standing up", "stand up", "get up"),
        13: ("tearing up paper", "tear paper", "tearing paper"),
        14: _others("wear jacket", _PUT_ON),
        15: _others("take off jacket", _TAKE_OFF),
        20: ("put on a hat", "put on a cap"),
        21: ("take off a hat", "take off a cap"),
        22: ("cheering up", "cheering"),
        23: ("wave", "waving"),
        24: ("kicking",),
        25: ("reaching into pocket",),
        27: ("jump", "jumping", "jumping up"),
        28: ("make a phone call", "answer phone", "phoning"),
        29: ("playing with phone", "playing with tablet"),
        34: ("rubbing two hands together", "rub hands", "rubbing hands"),
        35: ("nod head", "nodding", "nod", "bow", "bowing"),
        37: ("wiping face",),
        38: ("saluting",),
        41: ("sneeze", "cough", "sneezing", "coughing"),
        44: ("headache",),
        45: ("touch chest", "stomachache", "heart pain"),
        46: ("backache",),
        47: ("neckache",),
        48: ("nausea", "vomiting"),
        49: ("use a fan", "feeling warm"),
        50: ("punching", "punching other person", "slapping other person"),
        52: ("pushing",),
        53: ("pat on back", "patting on back of other person"),
        54: ("point finger", "pointing finger at the other person"),
        55: ("hugging",),
        58: ("handshake", "shaking hands"),
        61: ("put on headphones",),
        62: ("take off headphones",),
        67: ("hush (quiet)",),
        69: ("thumbs up",),
        70: ("thumbs down",),
        79: ("smell", "sniffing", "smelling"),
        80: ("squat", "squatting", "squatting down"),
        87: ("put on a bag",),
        88: ("take off a bag",),
        94: ("throw up cap", "throw up hat"),
        99: ("run on the spot",),
        100: ("kick backward",),
        103: ("yawning",),
        104: ("stretch", "stretching"),
        105: ("blowing nose",),
        112: ("give a high five",),
        113: ("cheers",),
        116: ("following other person",),
        117: ("whispering in other person's ear", "whisper"),
        120: ("finger-guessing game", "rock-paper-scissors"),
    },
)
"""NTU RGB+D 120, with the names as its authors spell them; the first 60 are those of NTU RGB+D."""

UTD_MHAD: tuple[ActionClass, ...] = _classes(
    (
        "swipe left",
        "swipe right",
        "wave",
        "clap",
        "throw",
        "arm cross",
        "basketball shoot",
        "draw X",
        "draw circle (clockwise)",
        "draw circle (counter clockwise)",
        "draw triangle",
        "bowling",
        "boxing",
        "baseball swing",
        "tennis swing",
        "arm curl",
        "tennis serve",
        "push",
        "knock",
        "catch",
        "pickup and throw",
        "jog",
        "walk",
        "sit to stand",
        "stand to sit",
        "lunge",
        "squat",
    ),
    range(1, 28),
    2,
    {
        1: ("swipe to the left",),
        2: ("swipe to the right",),
        3: ("hand waving", "waving"),
        4: ("clapping",),
        5: ("throwing",),
        6: ("cross arms",),
        7: ("basketball shooting",),
        8: ("draw a cross", "draw cross"),
        9: ("draw circle clockwise", "draw a circle clockwise"),
        10: ("draw circle counter clockwise", "draw circle anticlockwise"),
        11: ("drawing a triangle", "draw a triangle"),
        12: ("bowl",),
        13: ("punching",),
        18: ("pushing",),
        19: ("knocking", "knock on door"),
        20: ("catching",),
        21: ("pick up and throw",),
        22: ("jogging",),
        23: ("walking",),
        24: ("standing up", "stand up"),
        25: ("sitting down", "sit down"),
        27: ("squatting",),
    },
)
"""UTD-MHAD."""

NW_UCLA: tuple[ActionClass, ...] = _classes(
    (
        "pick up with one hand",
        "pick up with two hands",
        "drop trash",
        "walk around",
        "sit down",
        "stand up",
        "donning",
        "doffing",
        "throw",
        "carry",
    ),
    (1, 2, 3, 4, 5, 6, 8, 9, 11, 12),
    2,
    {
        3: ("dropping trash", "drop rubbish"),
        4: ("walking", "walking around"),
        5: ("sitting down",),
        6: ("standing up", "get up"),
        8: ("don", *_others("donning", _PUT_ON)),
        9: ("doff", *_others("doffing", _TAKE_OFF)),
        11: ("throwing",),
        12: ("carrying",),
    },
)
"""Northwestern-UCLA Multiview Action3D; its numbers leave out 7 and 10."""

SYNTHETIC: tuple[ActionClass, ...] = _classes(
    (
        "drink water",
        "throw",
        "sitting down",
        "standing up",
        "clapping",
        "reading",
        "put on jacket",
        "take off jacket",
        "hand waving",
        "kicking something",
        "jump up",
        "pushing",
        "handshaking",
    ),
    (1, 7, 8, 9, 10, 11, 14, 15, 23, 24, 27, 52, 58),
    3,
    {
        1: ("drinking water", "drinking"),
        7: ("throwing",),
        8: ("sit down",),
        9: ("stand up",),
        10: ("clap",),
        11: ("read",),
        14: _others("put on jacket", _PUT_ON),
        15: _others("take off jacket", _TAKE_OFF),
        23: ("wave", "waving"),
        24: ("kicking", "kick"),
        27: ("jump", "jumping"),
        52: ("pushing other person", "push"),
        58: ("handshake", "shaking hands"),
    },
)
"""What the kinematic generator can act, under the code of the same action in NTU RGB+D."""


def _kinetics() -> tuple[ActionClass, ...]:
    text = resources.files("tssan.skeletons").joinpath("kinetics400.txt").read_text("utf-8")
    names = text.splitlines()
    return named_classes(names, _KINETICS_ALIASES)


def named_classes(
    names: Sequence[str], aliases: Mapping[str, Sequence[str]] | None = None
) -> tuple[ActionClass, ...]:
    """Return classes without codes, with labels from 0 in the order of their names.

    Parameters
    ----------
    names
        All different.
    aliases
        By name: what else it is called, beyond what `other_names` finds.
    """
    known = {names.index(name): also for name, also in (aliases or {}).items()}
    others = other_names(names, known)
    return tuple(
        ActionClass(label, name, "", also)
        for label, (name, also) in enumerate(zip(names, others, strict=True))
    )


_KINETICS_ALIASES = {
    "applauding": ("applause",),
    "brushing teeth": ("tooth brushing",),
    "clapping": ("handclapping",),
    "doing laundry": ("washing clothes",),
    "drinking": ("drink water",),
    "hugging": ("hug",),
    "opening bottle": ("open a bottle",),
    "pumping gas": ("refuel",),
    "push up": ("press-up", "pushup"),
    "pull ups": ("chin-ups", "pullups"),
    "shaking hands": ("handshaking", "handshake"),
    "situp": ("sit-up", "sit-ups"),
    "squat": ("squatting", "squats"),
    "texting": ("writing a text message",),
}

KINETICS: tuple[ActionClass, ...] = _kinetics()
"""Kinetics-400, in the order of the labels of ST-GCN's skeletons."""
