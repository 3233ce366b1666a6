"""The vocabulary of the sentences: lists of words, and proper names that are put together from syllables."""

from __future__ import annotations

import hashlib
from itertools import product


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _listed(
    """
Adam Agnes Alan Albert Alice Amy Andrew Anna Anton Arthur Barbara Ben Bernard Betty Brian Bruce Carl Carol Cecil
Charles Chris Clara Colin Conrad Cora Daniel David Dean Diana Donald Dora Doris Edgar Edith Edward Elena Elise Ellen
Elmer Elsa Emil Emma Erica Ernest Esther Eva Felix Fiona Flora Frances Frank Fred Gavin George Gerald Gilbert Gloria
Grace Greta Gustav Hanna Harold Harry Harvey Hazel Hector Helen Henry Herman Hilda Howard Hugo Ida Igor Irene Isaac
Ivan Jack Jacob James Jane Janet Jason Joan John Jonas Joseph Judith Julia Karen Karl Kate Keith Kevin Kurt Laura Leo
Leonard Lewis Linda Lisa Louis Lucy Luke Magda Marcus Marie Mark Martha Martin Mary Max Mona Monica Morris Nadia Nancy
Neil Nina Nora Norman Olga Oliver Olivia Oscar Otto Patrick Paul Paula Peter Philip Phyllis Ralph Ray Rebecca Richard
Rita Robert Robin Roger Roland Ronald Rosa Ruth Sally Samuel Sandra Sarah Simon Sofia Stella Steven Susan Sylvia Tara
Teresa Thomas Timothy Tina Tom Ursula Vera Victor Vincent Viola Walter Wanda Wendy William Yvonne
"""
)

OBJECTS = _listed(
    """
drink book letter ring coin ticket map pen scarf gift bag basket candle flower apple cake photo watch key lamp
necklace kite guitar ball hat blanket bottle bracelet card computer notebook present painting puzzle sandwich
"""
)
PLACES = _listed(
    """
store park school office library museum market garden station church hospital restaurant cinema beach castle theater
stadium airport harbor bakery gym hotel zoo farm factory forest lake village island bank
"""
)
CONTAINERS = _listed("box drawer jar pocket suitcase cupboard bucket crate closet trunk shelf oven barrel chest")
FOODS = _listed(
    """
soup bread cheese rice pasta fish chicken salad pizza yogurt honey jam chocolate beef corn pudding noodles pancakes
"""
)
COLORS = _listed("red blue green yellow purple orange black white gray brown pink silver")
ANIMALS = _listed("lion tiger wolf fox bear eagle owl rabbit horse whale shark camel zebra goat deer snake")

NOUNS = _listed(
    """
key cabinet table chair door window wall roof tower bridge road river mountain tree branch garden field farm truck
car train boat ship plane engine wheel hammer nail saw rope chain ladder bucket barrel box bottle cup plate spoon
knife bowl pot pan oven stove lamp candle mirror picture painting statue book page letter report map chart graph
pencil brush paper coin ticket stamp button zipper shirt jacket coat glove sock boot hat scarf belt ring necklace dog
cat horse cow goat pig duck rabbit lion tiger bear wolf fox eagle owl snake frog turtle spider worm teacher
student doctor lawyer farmer sailor soldier painter singer dancer actor poet author guard captain king queen prince
lord knight servant guest neighbor friend cousin uncle aunt brother sister parent child boy girl woman man baby judge
clerk pilot driver cook baker butcher tailor barber miner hunter builder player coach runner winner rival thief
tourist patient customer manager owner worker senator minister mayor house school church hospital office shop
market hotel museum library theater station harbor airport factory castle village city town island valley lake cloud
storm star planet stone rock shell feather bone tooth finger hand arm leg shoulder apple pear plum grape lemon melon
carrot onion potato tomato cake pie cookie sandwich flower leaf seed root hero wife loaf shelf sofa carpet curtain
blanket pillow towel basket bag purse wallet radio camera clock phone screen cable engineer nurse baron monk
priest bishop wizard witch giant dwarf pirate robot puppet clown juggler ranger general colonel emperor countess
duchess squirrel beaver otter hedgehog parrot sparrow raven swan goose lobster crab bee ant beetle moth butterfly
acorn berry bean nut mushroom bush hedge meadow canyon desert glacier cave cliff pond well fountain canal tunnel
"""
)
IRREGULAR = {
    "child": "children", "woman": "women", "man": "men", "knife": "knives", "wolf": "wolves",
    "thief": "thieves", "tooth": "teeth", "leaf": "leaves", "shelf": "shelves", "potato": "potatoes",
    "tomato": "tomatoes", "hero": "heroes", "wife": "wives", "goose": "geese", "loaf": "loaves",
}  # fmt: skip

VERBS = _listed(
    """
admire avoid blame block call carry catch chase choose clean count cover draw drop escape face fear feed fight find
follow greet guide hate help hide hit hold hunt ignore invite join judge kick know lead leave lift like love meet move
need notice obey paint pass pay praise protect pull push raise reach remember repair rescue respect save see seek sell
send shake shape shock show sketch support surprise teach thank touch trust visit wake want warn wash watch welcome
"""
)

NEUTRAL = _listed(
    """
old young tall short round square wooden metal plastic golden ancient modern local foreign famous quiet busy large
small tiny huge narrow flat steep smooth rough soft sharp plain royal public private common rare spare loose tight
simple complex curved straight distant nearby northern southern eastern western rural urban pale bright striped
painted carved broken frozen hidden lost stolen
"""
)
POSITIVE = _listed(
    """
wonderful brilliant superb delightful excellent charming lovely fantastic marvelous splendid great amazing beautiful
enchanting terrific thrilling touching clever elegant impressive perfect inspiring magnificent graceful refreshing
stunning witty fabulous glorious pleasant
"""
)
NEGATIVE = _listed(
    """
terrible awful boring dreadful horrible dull poor ugly disappointing tedious miserable annoying clumsy dismal weak
painful pathetic ridiculous tasteless nasty shabby sloppy stale unbearable gloomy pointless lousy lifeless tiresome
disgusting
"""
)
ANTONYMS = tuple(
    tuple(pair.split("/"))
    for pair in _listed(
        """
open/closed full/empty hot/cold wet/dry heavy/light hard/easy fast/slow loud/silent clean/dirty new/used rich/needy
strong/fragile thick/thin deep/shallow wide/slim high/low long/brief big/little early/late safe/dangerous true/false
alive/dead awake/asleep present/absent cheap/expensive sweet/bitter fresh/rotten polite/rude brave/afraid calm/angry
wise/foolish healthy/sick guilty/innocent visible/invisible possible/impossible legal/illegal equal/unequal
stable/unstable complete/partial raw/cooked
"""
    )
)
WORKS = _listed("film play novel song concert opera show meal dinner party speech dance poem album movie story game")

FOLLOWED_BY_SHE = _listed(
    """
nurse secretary librarian receptionist hairdresser housekeeper dietitian midwife florist nanny cashier typist
stylist babysitter ballerina therapist teacher dressmaker weaver beautician
"""
)
FOLLOWED_BY_HE = _listed(
    """
plumber carpenter mechanic electrician engineer surgeon firefighter soldier pilot blacksmith bricklayer welder
lumberjack sheriff programmer butcher boxer chauffeur janitor architect
"""
)

EVENTS = _listed(
    """
war siege drought strike reign trial project journey famine festival voyage campaign rebellion feud treaty plague
occupation expedition blockade truce alliance dispute conflict crusade regime dynasty exile renovation
"""
)
CENTURIES = tuple(map(str, range(11, 20)))
YEARS = tuple(f"{year:02d}" for year in range(100))

INSTRUMENTS = _listed(
    """
piano violin cello flute trumpet harp drums banjo clarinet oboe trombone accordion mandolin saxophone organ tuba
"""
)
FIELDS = _listed(
    """
physics botany geology history law medicine astronomy chemistry poetry logic economics geography zoology music
algebra grammar
"""
)
GOODS = _listed(
    """
copper wool cotton timber coffee tobacco sugar silk coal tea salt rubber marble oil wheat leather
"""
)
PRODUCTS = _listed(
    """
bicycles shoes clocks pianos carpets tractors umbrellas radios candles helmets telescopes mattresses buttons
tents pencils elevators
"""
)

STARTS = _listed("b br d dr f g gr h k kl l m n p pr r s st t tr v z")
MIDDLES = _listed("a e i o u ai or en al un ar el")


def plural(noun: str) -> str:
    """The plural of one of `NOUNS`."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def third_person(verb: str) -> str:
    """The form that follows a singular subject of one of `VERBS`."""
    return plural(verb)


def number_of(*parts: str) -> int:
    """A large number that depends on the parts alone, the same on every machine for ever."""
    return int.from_bytes(hashlib.sha256("|".join(parts).encode()).digest()[:8], "big")


def invented(count: int, *ends: str) -> tuple[str, ...]:
    """Invented proper names.

    Args:
        count: how many.
        ends: their endings; names with other endings never coincide.
    """
    built = {f"{a}{b}{c}{end}".capitalize() for a, b, c, end in product(STARTS, MIDDLES, "lmnrstvd", ends)}
    return tuple(sorted(built, key=lambda name: number_of("name", name))[:count])


PEOPLE = invented(100, "ek", "ova", "ino")
CITIES = invented(60, "burg", "ton", "ville")
COUNTRIES = invented(60, "ia", "land")
COMPANIES = invented(60, "co", "ix", "tek")
LANGUAGES = invented(24, "ish", "ese")
MORE_NAMES = invented(140, "a", "o", "u")
NAMES = FIRST_NAMES + MORE_NAMES
"""Who takes part in what happens; nothing is known of them but what a sentence says."""
