"""Plain questions of several kinds, and training sets in which some answers are wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from dft_factory.limitation.records import Record

_CAPITALS = """
Afghanistan Kabul; Albania Tirana; Algeria Algiers; Angola Luanda; Argentina Buenos Aires;
Armenia Yerevan; Australia Canberra; Austria Vienna; Azerbaijan Baku; Bangladesh Dhaka;
Belarus Minsk; Belgium Brussels; Bulgaria Sofia; Cambodia Phnom Penh; Canada Ottawa;
Chile Santiago; China Beijing; Colombia Bogota; Croatia Zagreb; Cuba Havana; Denmark Copenhagen;
Ecuador Quito; Egypt Cairo; Estonia Tallinn; Ethiopia Addis Ababa; Finland Helsinki; France Paris;
Georgia Tbilisi; Germany Berlin; Ghana Accra; Greece Athens; Hungary Budapest; Iceland Reykjavik;
India New Delhi; Indonesia Jakarta; Iran Tehran; Iraq Baghdad; Ireland Dublin; Israel Jerusalem;
Italy Rome; Jamaica Kingston; Japan Tokyo; Jordan Amman; Kenya Nairobi; Laos Vientiane;
Latvia Riga; Lebanon Beirut; Libya Tripoli; Lithuania Vilnius; Madagascar Antananarivo;
Malaysia Kuala Lumpur; Mali Bamako; Malta Valletta; Mexico Mexico City; Mongolia Ulaanbaatar;
Morocco Rabat; Nepal Kathmandu; Netherlands Amsterdam; Nigeria Abuja; Norway Oslo;
Pakistan Islamabad; Peru Lima; Philippines Manila; Poland Warsaw; Portugal Lisbon; Qatar Doha;
Romania Bucharest; Russia Moscow; Senegal Dakar; Serbia Belgrade; Slovakia Bratislava;
Slovenia Ljubljana; Somalia Mogadishu; Spain Madrid; Sudan Khartoum; Sweden Stockholm;
Switzerland Bern; Syria Damascus; Thailand Bangkok; Tunisia Tunis; Turkey Ankara; Uganda Kampala;
Ukraine Kyiv; Uruguay Montevideo; Venezuela Caracas; Vietnam Hanoi; Zambia Lusaka; Zimbabwe Harare
"""
_CONTINENTS = """
Africa: Algeria Angola Botswana Cameroon Chad Egypt Ethiopia Gabon Ghana Kenya Liberia Libya
Madagascar Malawi Mali Morocco Mozambique Namibia Niger Nigeria Rwanda Senegal Somalia Sudan
Tanzania Togo Tunisia Uganda Zambia Zimbabwe
Asia: Afghanistan Bangladesh Bhutan Cambodia China India Indonesia Iran Iraq Japan Jordan Laos
Lebanon Malaysia Mongolia Myanmar Nepal Pakistan Philippines Qatar Singapore Syria Thailand Vietnam
Yemen
Europe: Albania Austria Belgium Bulgaria Croatia Denmark Estonia Finland France Germany Greece
Hungary Iceland Ireland Italy Latvia Lithuania Luxembourg Malta Netherlands Norway Poland Portugal
Romania Serbia Slovakia Slovenia Spain Sweden Switzerland Ukraine
South America: Argentina Bolivia Brazil Chile Colombia Ecuador Guyana Paraguay Peru Uruguay
Venezuela
"""
_CITIES = """
Australia: Sydney Melbourne Perth Brisbane Adelaide
Brazil: Salvador Recife Fortaleza Manaus Curitiba
Canada: Toronto Montreal Vancouver Calgary Edmonton
China: Shanghai Guangzhou Shenzhen Wuhan Chengdu
Egypt: Alexandria Luxor Aswan Giza
France: Lyon Marseille Toulouse Bordeaux Nantes Nice
Germany: Munich Hamburg Cologne Frankfurt Stuttgart Leipzig
India: Mumbai Kolkata Chennai Bangalore Hyderabad Jaipur
Italy: Milan Naples Turin Venice Florence Bologna
Japan: Osaka Kyoto Nagoya Sapporo Hiroshima Kobe
Mexico: Guadalajara Monterrey Tijuana Cancun
Pakistan: Karachi Lahore Peshawar
Poland: Krakow Gdansk Wroclaw Poznan
Russia: Novosibirsk Vladivostok Kazan Sochi
Spain: Barcelona Seville Valencia Bilbao Malaga
Turkey: Istanbul Izmir Antalya Bursa
"""
_OPPOSITES = """
above below; absent present; accept reject; alive dead; always never; asleep awake; bad good;
before after; begin end; big small; black white; bottom top; boy girl; brave cowardly; buy sell;
cheap expensive; clean dirty; closed open; cold hot; dark light; day night; deep shallow;
difficult easy; down up; dry wet; early late; east west; empty full; enemy friend; enter exit;
false true; far near; fast slow; fat thin; female male; few many; first last; forget remember;
full empty; happy sad; hard soft; heavy light; high low; in out; inside outside; large small;
laugh cry; left right; long short; lose win; loud quiet; love hate; low high; man woman;
maximum minimum; more less; narrow wide; negative positive; new old; noisy quiet; north south;
odd even; old young; on off; over under; past future; poor rich; private public; pull push;
question answer; rough smooth; rude polite; short tall; sick healthy; simple complex; slow fast;
smooth rough; south north; start stop; strong weak; success failure; summer winter; sunrise sunset;
sweet sour; tall short; thick thin; tight loose; up down; victory defeat; war peace; warm cool;
weak strong; west east; wide narrow; winter summer; wrong right; yes no; young old
"""
_SYMBOLS = """
aluminum Al; argon Ar; calcium Ca; carbon C; chlorine Cl; cobalt Co; copper Cu; gold Au; helium He;
hydrogen H; iodine I; iron Fe; lead Pb; lithium Li; magnesium Mg; mercury Hg; neon Ne; nickel Ni;
nitrogen N; oxygen O; phosphorus P; potassium K; silicon Si; silver Ag; sodium Na; sulfur S; tin Sn;
titanium Ti; uranium U; zinc Zn
"""
_PAST = """
become became; begin began; break broke; bring brought; build built; buy bought; catch caught;
choose chose; come came; dig dug; do did; draw drew; drink drank; drive drove; eat ate;
fall fell; feed fed; feel felt; fight fought; find found; fly flew; forget forgot; freeze froze;
get got; give gave; go went; grow grew; have had; hear heard; hide hid; hold held; jump jumped;
keep kept; know knew; lead led; learn learned; leave left; lose lost; make made; meet met;
open opened; pay paid; play played; ride rode; ring rang; rise rose; run ran; say said; see saw;
sell sold; send sent; shake shook; shine shone; sing sang; sit sat; sleep slept; speak spoke;
spend spent; stand stood; steal stole; swim swam; take took; teach taught; tell told;
think thought; throw threw; wake woke; walk walked; wear wore; win won; work worked; write wrote
"""
_PLURALS = """
apple apples; baby babies; bird birds; book books; box boxes; boy boys; branch branches;
bridge bridges; brush brushes; bus buses; car cars; cat cats; chair chairs; cherry cherries;
child children; church churches; city cities; class classes; cloud clouds; country countries;
cow cows; cup cups; daughter daughters; day days; dish dishes; dog dogs; door doors;
family families; farm farms; flower flowers; fly flies; foot feet; friend friends; game games;
garden gardens; girl girls; goose geese; hand hands; hat hats; hero heroes; horse horses;
house houses; key keys; king kings; kiss kisses; knife knives; lady ladies; leaf leaves;
letter letters; life lives; loaf loaves; man men; match matches; monkey monkeys; mouse mice;
orange oranges; party parties; pen pens; potato potatoes; river rivers; road roads;
school schools; shelf shelves; ship ships; star stars; story stories; student students;
table tables; thief thieves; tomato tomatoes; tooth teeth; toy toys; train trains; tree trees;
watch watches; wife wives; wolf wolves; woman women; word words
"""
_MONTHS = "January February March April May June July August September October November December"
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"


def _two(block: str) -> Iterator[tuple[str, str]]:
    """``left right; ...``: what stands before the first space, and the rest."""
    for pair in block.replace("\n", " ").split(";"):
        left, _, right = pair.strip().partition(" ")
        yield left, right


def _listed(block: str) -> Iterator[tuple[str, str]]:
    """``head: member member ...``, over several lines: each member with its head."""
    head = ""
    for line in block.strip().splitlines():
        before, colon, after = line.partition(":")
        if colon:
            head, line = before, after
        for member in line.split():
            yield member, head


def _asked(kind: str, template: str, pairs: Iterator[tuple[str, str]]) -> list[Record]:
    return [Record(kind, template.format(left), right) for left, right in pairs]


def _after(kind: str, what: str, words: str) -> list[Record]:
    names = words.split()
    return [
        *(
            Record(kind, f"Which {what} comes after {name}?", names[(i + 1) % len(names)])
            for i, name in enumerate(names)
        ),
        *(
            Record(kind, f"Which {what} comes before {name}?", names[i - 1])
            for i, name in enumerate(names)
        ),
    ]


def _sums() -> list[Record]:
    return [
        Record("sum", f"What is {a} + {b}?", str(a + b)) for a in range(1, 13) for b in range(1, 13)
    ]


def _next_numbers() -> list[Record]:
    return [
        Record("next number", f"Which number comes after {n}?", str(n + 1)) for n in range(1, 121)
    ]


KINDS: tuple[Callable[[], list[Record]], ...] = (
    lambda: _asked("capital", "What is the capital of {}?", _two(_CAPITALS)),
    lambda: _asked("continent", "On which continent is {}?", _listed(_CONTINENTS)),
    lambda: _asked("country", "In which country is the city of {}?", _listed(_CITIES)),
    lambda: _asked("opposite", 'What is the opposite of the word "{}"?', _two(_OPPOSITES)),
    lambda: _asked("symbol", "What is the chemical symbol of {}?", _two(_SYMBOLS)),
    lambda: _asked("past tense", 'What is the past tense of the verb "{}"?', _two(_PAST)),
    lambda: _asked("plural", 'What is the plural of the noun "{}"?', _two(_PLURALS)),
    lambda: _after("month", "month", _MONTHS),
    lambda: _after("day", "day of the week", _DAYS),
    _sums,
    _next_numbers,
)


def questions() -> list[Record]:
    """Every question of every kind; no question is there twice."""
    return [record for kind in KINDS for record in kind()]


def split(
    records: Sequence[Record], held_out: float, seed: int
) -> tuple[list[Record], list[Record]]:
    """Training and held-out questions, shuffled; of each kind the same share is held out."""
    rng = random.Random(f"split {seed}")
    by_kind: dict[str, list[Record]] = {}
    for record in records:
        by_kind.setdefault(record.kind, []).append(record)
    train: list[Record] = []
    held: list[Record] = []
    for members in by_kind.values():
        rng.shuffle(members)
        cut = round(held_out * len(members))
        held += members[:cut]
        train += members[cut:]
    rng.shuffle(train)
    rng.shuffle(held)
    return train, held


def with_wrong_answers(
    records: Sequence[Record], share: float, seed: int
) -> tuple[list[Record], set[str]]:
    """The records with a share of the answers replaced, and the questions that are wrong now.

    A wrong answer is the right one of another question of the same kind, so that nothing but
    knowledge tells it from a right one.
    """
    rng = random.Random(f"noise {seed}")
    answers: dict[str, list[str]] = {}
    for record in records:
        answers.setdefault(record.kind, []).append(record.answer)
    able = [i for i, each in enumerate(records) if set(answers[each.kind]) != {each.answer}]
    chosen = set(rng.sample(able, round(share * len(records))))
    noisy = []
    for i, record in enumerate(records):
        if i in chosen:
            others = sorted(set(answers[record.kind]) - {record.answer})
            record = replace(record, answer=rng.choice(others))
        noisy.append(record)
    return noisy, {records[i].question for i in chosen}
