"""What columns and transmitters are called: the usual names of positions, labels and readings, and spellings of MACs.

Needs the standard library alone.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache

# By role, what users and publishers call its column, compared by `plain`. Where several are there, the first wins.
ALIASES = {
    "scan": "scan scanid scannumber scanno scannr fingerprint fingerprintid measurement measurementid sampleid "
    "uplinkid messageid deduplicationid",
    "x": "x xcoord xcoordinate coordx coordinatex posx positionx locx locationx east easting ecoord utmx utmeasting",
    "y": "y ycoord ycoordinate coordy coordinatey posy positiony locy locationy north northing ncoord utmy utmnorthing",
    "latitude": "latitude lat gpslat gpslatitude decimallatitude",
    "longitude": "longitude lon lng long gpslon gpslng gpslongitude decimallongitude",
    "floor": "floor floorid floornumber floorno floornr floorlevel storey story",
    "building": "building buildingid buid bldg bldgid buildingnumber buildingno",
    "time": "time timestamp datetime date receivedat utc utctime",
    "device": "device deviceid devicename phone phoneid smartphone deveui model",
    "transmitter": "transmitter transmitterid bssid mac macaddress macaddr macaddressofap macid apmac address addr ap "
    "apid apname accesspoint wap wifimac gateway gatewayid gatewayeui gw gwid gweui beacon beaconid",
    "rssi": "rssi rss rssivalue level signal signalstrength signallevel dbm power strength rxpower rxlevel "
    "receivedpower receivedsignalstrength",
}
POSITIONS = (("x", "y"), ("latitude", "longitude"))
# Roles of a scan as a whole; `transmitter` and `rssi` are of one reading.
OF_PLACE = ("x", "y", "latitude", "longitude", "floor", "building")
OF_SCAN = ("scan", *OF_PLACE, "time", "device")
OF_READING = ("transmitter", "rssi")

# Columns that are often there and no transmitter, by `plain`.
OTHERS = """z alt altitude height elevation snr lsnr noise noisefloor heading bearing azimuth orientation compass
direction speed accuracy hdop vdop pdop id index idx no nr number row rownumber rowid rownames unnamed0 line counter
count seq sequence fcnt sf spreadingfactor frequency freq channel chan bandwidth datarate sceneid sampletimes
samples spaceid relativeposition userid user username temperature humidity pressure battery label room roomid zone
comment note notes ssid rp rpid refpoint point pointid reference vendor security capabilities path session
trajectory"""
# At the end of a column's name: `Easting (m)`, `lat_deg`, `SNR [dB]`.
UNIT_AT_END = re.compile(r"[\W_]+(m|met(re|er)s?|deg(rees?)?|dbm?|wgs ?84|utc|m?s)\W*$", re.IGNORECASE)
MAC_LENGTHS = (12, 16)  # hexadecimal digits of a MAC address and of an EUI-64
SEPARATORS = re.compile(r"[:\-.\s_]")
HEXADECIMAL = re.compile(r"[0-9a-f]+")
# By `plain` or `unitless` name: the role, and how far behind the others of that role it stands.
ROLE_AND_RANK = {alias: (role, rank) for role, aliases in ALIASES.items() for rank, alias in enumerate(aliases.split())}
OTHER_WORDS = frozenset(OTHERS.split())


# === Spellings of transmitters ===


def canonical(name: str) -> str:
    """A MAC address in lower case without separators; another name as it is written."""
    digits = SEPARATORS.sub("", name).lower()
    if len(digits) in MAC_LENGTHS and HEXADECIMAL.fullmatch(digits):
        return digits
    return name


class Spellings:
    """Finds transmitters by name: as written, or by MAC address whatever its case and separators.

    Args:
        names: that are known. Where two of them are one MAC address, only what is written like one of them is found.
    """

    def __init__(self, names: Sequence[str] = ()):
        self.numbers = {name: number for number, name in enumerate(names)}
        by_address = {}
        for number, name in enumerate(names):
            by_address.setdefault(canonical(name), []).append(number)
        self.by_address = {address: numbers[0] for address, numbers in by_address.items() if len(numbers) == 1}

    def __len__(self) -> int:
        return len(self.numbers)

    def number(self, name: str) -> int:
        """Which of the names it is; −1 if none."""
        number = self.numbers.get(name)
        if number is None:
            number = self.by_address.get(canonical(name), -1)
        return number


# === Columns ===


@dataclass(frozen=True)
class Columns:
    """What the columns of a table, or the keys of a dict, are.

    Attributes:
        known: transmitters that are known; a column that is called like one is that, whatever its name may mean.
        declared: by role, the name of its column.
        ignored: names, or patterns of names, of columns that are left out.
        transmitters: patterns of the names that are transmitters; none for all that are nothing else.
        remembered: what names mean that were asked about.
        meaningless: those of them that have no role.
    """

    known: Spellings = field(default_factory=Spellings)
    declared: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    transmitters: tuple[str, ...] = ()
    remembered: dict[str, tuple[str | None, int]] = field(default_factory=dict, repr=False)
    meaningless: set[str] = field(default_factory=set, repr=False)

    def role(self, name: str) -> tuple[str | None, int]:
        """What a column is by its name, and how far behind others of that it stands, see `role_and_rank`."""
        if name not in self.remembered:
            is_settled = name in self.known.numbers or self.is_ignored(name) or matches(name, self.transmitters)
            self.remembered[name] = (None, 0) if is_settled else role_and_rank(name)
            if self.remembered[name][0] is None and name not in self.declared.values():
                self.meaningless.add(name)
        return self.remembered[name]

    def roles(self, names: Sequence[str], need_declared: bool = True) -> dict[str, int]:
        """By role, the number of its column.

        Args:
            names: of the columns.
            need_declared: whether the declared ones have to be there.

        Raises:
            ValueError: if a declared column is not there, there is no such role, or two names mean the same.
        """
        found = {}
        for role, name in self.declared.items():
            if need_declared or name in names:
                found[role] = self._declared_number(role, name, names)
        if len(set(found.values())) < len(found):
            raise ValueError(f"--columns: expected another column for each role. Received: {self.declared}")
        best = {}
        for number, name in enumerate(names):
            role, rank = self.role(name)
            if role is None or role in found or number in found.values():
                continue
            best_rank, best_number = best.get(role, (math.inf, number))
            if rank < best_rank:
                best[role] = (rank, number)
            elif rank == best_rank and name != names[best_number]:
                both = f"{names[best_number]}, {name}"
                raise ValueError(f"expected one column for {role}. Received: {both}. --columns {role}=… says which")
        return found | {role: number for role, (_, number) in best.items()}

    def _declared_number(self, role: str, name: str, names: Sequence[str]) -> int:
        if role not in ALIASES:
            raise ValueError(f"--columns: expected one of {', '.join(ALIASES)} before =. Received: {role}")
        alike = [number for number, other in enumerate(names) if other == name]
        alike = alike or [number for number, other in enumerate(names) if plain(other) == plain(name)]
        if len(alike) != 1:
            raise ValueError(f"--columns {role}={name}: expected a column of that name. Received: {listed(names)}")
        return alike[0]

    def is_ignored(self, name: str) -> bool:
        return bool(self.ignored) and matches(name, self.ignored)

    def is_left_out(self, transmitter: str) -> bool:
        """Whether a transmitter that is known to be one is left out by its name."""
        return self.is_ignored(transmitter) or bool(self.transmitters and not matches(transmitter, self.transmitters))

    def is_transmitter(self, name: str) -> bool:
        """Whether a column without a role may be a transmitter."""
        if self.is_ignored(name):
            return False
        if name in self.known.numbers:
            return True
        if self.transmitters:
            return matches(name, self.transmitters)
        return not is_other(name)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is one of some, or like one with `*` and `?`, whatever its case."""
    return any(fnmatchcase(name.casefold(), pattern.casefold()) for pattern in patterns)


@lru_cache(maxsize=2**16)
def plain(name: str) -> str:
    """A column's name in lower case, letters and digits alone: `MAC Address of AP` → `macaddressofap`."""
    return "".join(character for character in name.casefold() if character.isalnum())


def unitless(name: str) -> str:
    """`plain` of a name without the unit at its end: `Easting (m)` → `easting`."""
    end = UNIT_AT_END.search(name)
    return plain(name[: end.start()]) if end else plain(name)


@lru_cache(maxsize=2**16)
def role_and_rank(name: str) -> tuple[str | None, int]:
    """What a column is by its name, and how far behind other names of that it stands."""
    return ROLE_AND_RANK.get(plain(name)) or ROLE_AND_RANK.get(unitless(name), (None, 0))


@lru_cache(maxsize=2**16)
def is_other(name: str) -> bool:
    """Whether a column is called like something that is no transmitter."""
    words = {plain(name), unitless(name)}
    return "" in words or not words.isdisjoint(OTHER_WORDS) or not words.isdisjoint(ROLE_AND_RANK)


def listed(names: Iterable, most: int = 12) -> str:
    """Names for a message, the first few."""
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + ", …" * (len(names) > most)
