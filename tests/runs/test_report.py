"""The report is one safe file that says the right thing first."""

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from hoarfrost.analysis.fsc import HalfMapFSC, validate_half_maps
from hoarfrost.analysis.verdict import Evidence, judge
from hoarfrost.analysis.views import unseen_share
from hoarfrost.errors import InputError
from hoarfrost.geometry.rotations import euler_to_matrix, random_rotations
from hoarfrost.runs.report import duration, write_report
from hoarfrost.runs.shown import ReportData, Start
from hoarfrost.types import HalfMaps, ImageArray, Optics, Particles, Poses, Volume
from phantoms import GaussianPhantom

BOX, VOXEL, COUNT = 48, 2.0, 1500


class Page(HTMLParser):
    """Tags, ids, addresses and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                self.addresses.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def full_data(generator: torch.Generator) -> ReportData:
    volume = GaussianPhantom.random(60, 30.0, generator, sigma=3.0).volume(BOX, VOXEL)
    size = 0.3 * float(volume.data.std())
    halves = HalfMaps(
        *(Volume(volume.data + size * torch.randn(BOX, BOX, BOX, generator=generator), VOXEL) for _ in range(2))
    )
    defocus = torch.linspace(9000, 20000, COUNT, dtype=torch.float64)
    poses = Poses(
        random_rotations(COUNT, generator),
        3 * torch.randn(COUNT, 2, generator=generator, dtype=torch.float64),
        0.6 + 0.4 * torch.rand(COUNT, generator=generator, dtype=torch.float64),
    )
    particles = Particles(
        ImageArray(torch.zeros(1, BOX, BOX).expand(COUNT, BOX, BOX)),
        Optics.uniform(COUNT, pixel_size=VOXEL).replace(defocus_u=defocus, defocus_v=defocus),
        poses,
    )
    images = torch.randn(4, BOX, BOX, generator=generator)
    return ReportData(
        map=volume,
        half_maps=halves,
        fsc=validate_half_maps(halves),
        particles=particles,
        diameter=66.0,
        evidence=Evidence(1500, 66.0, validate_half_maps(halves), agreement=0.93, confidence=0.9, unseen=0.0),
        starts=(
            Start("start 1", (1.0, 5.0, 9.0), True, 1.0),
            Start("start 2", (0.0, 4.0, 8.0), False, 0.93),
        ),
        noise=torch.ones(1, 24, dtype=torch.float64),
        examples=(images, images),
        timings={"search": 61.0, "maps": 4.0},
        peak_fraction={"search": 0.4},
    )


def test_full_report_is_one_file_that_needs_nothing(tmp_path: Path, generator: torch.Generator) -> None:
    path = write_report(tmp_path, full_data(generator), {"version": "1.2.3", "command": ["hoarfrost", "abinit"]})
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert path.stat().st_size < 3e6
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert not re.search(r"url\((?!#|\")", html)
    assert len(page.ids) == len(set(page.ids))
    names = {file.name for file in (tmp_path / "figures").iterdir()}
    expected = "map fsc orientations confidence shifts examples starts agreement defocus noise timings"
    assert names == {f"{name}.png" for name in expected.split()}
    assert page.tags.count("figure") == len(names)
    for words in ("1,500", "1 min 05 s", "0.93", "The run looks sound.", "hoarfrost abinit"):
        assert words in page.text
    assert page.text.index("The run looks sound.") < page.text.index("Slices and projections")


def test_empty_report_leaves_sections_out(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path, ReportData(), {}).read_text(encoding="utf-8"))
    assert "figure" not in page.tags
    for absent in ("The map", "Record", "Going on", "Time", "The starts"):
        assert absent not in page.text
    assert list((tmp_path / "figures").iterdir()) == []


def test_text_from_files_is_escaped(tmp_path: Path) -> None:
    hostile = '<script>alert("1")</script>&<img src=x onerror=1>'
    folder = tmp_path / "a <b> & c"
    folder.mkdir()
    (folder / "map.mrc").touch()
    (folder / "particles.star").touch()
    manifest = {
        "command": ["hoarfrost", "abinit", hostile],
        "version": hostile,
        "inputs": {hostile: {"sha256": hostile}},
        "machine": {"cpu": hostile, "gpus": [hostile, {"name": hostile}]},
    }
    data = ReportData(
        title=hostile,
        warnings=(hostile,),
        timings={hostile: 1.0},
        starts=(Start(hostile, (1.0,), True, 1.0), Start("b", (2.0,), False, 0.6)),
        scores={hostile: {"x": hostile}},
    )
    page = Page(write_report(folder, data, manifest).read_text(encoding="utf-8"))
    assert not {"script", "img"} & set(page.tags)
    assert hostile in page.text
    assert "'" + str(folder.resolve() / "particles.star") + "'" in page.text


def test_warnings_come_with_the_verdict(tmp_path: Path, generator: torch.Generator) -> None:
    data = full_data(generator)
    data = ReportData(fsc=data.fsc, diameter=66.0, warnings=("Particles were dark and have been inverted.",))
    text = Page(write_report(tmp_path, data, {}).read_text(encoding="utf-8")).text
    assert text.index("Warnings of the run") < text.index("have been inverted") < text.index("The map")


def test_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "figures").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="figures: cannot be made"):
        write_report(tmp_path, ReportData(), {})


def fsc(crossing: float, unmasked: float | None = None) -> HalfMapFSC:
    frequency = torch.arange(65, dtype=torch.float64) / (128 * 1.5)

    def falling(at: float) -> torch.Tensor:
        return 1 / (1 + torch.exp((frequency - at) * 100))

    return HalfMapFSC(frequency, falling(unmasked or crossing), falling(crossing), 0 * frequency, falling(crossing), 5)


def test_sound_run() -> None:
    verdict = judge(Evidence(5000, 150.0, fsc(0.2), agreement=0.95, confidence=0.9, unseen=0.0))
    assert verdict.level == "good"
    assert len(verdict.reasons) == 2


def test_a_refinement_near_given_poses_says_that_no_others_were_tried() -> None:
    verdict = judge(Evidence(5000, 150.0, fsc(0.2), near=True))
    assert verdict.level == "good"
    assert "--search global" in verdict.reasons[-1]
    assert not verdict.warnings


@pytest.mark.parametrize(
    ("evidence", "level", "says"),
    [
        (Evidence(5000, 150.0, fsc(-0.01)), "bad", "mostly noise"),
        (Evidence(5000, 150.0, fsc(0.02), common=32.0), "bad", "hardly further"),
        (Evidence(5000, 150.0, fsc(0.2), agreement=0.3), "bad", "different maps"),
        (Evidence(5000, 150.0, fsc(0.2), axes=0.5), "bad", "does not show the axes"),
        (Evidence(5000, 150.0, fsc(0.2), axes=0.75), "caution", "does not show the axes"),
        (Evidence(5000, 150.0, fsc(0.2), agreement=0.6), "caution", "only in part"),
        (Evidence(5000, 150.0, fsc(9.0)), "good", "all the way to the pixel limit"),
        (Evidence(5000, 150.0, fsc(0.25, unmasked=0.03)), "caution", "rests heavily on the mask"),
        (Evidence(5000, 150.0, fsc(0.2), unseen=0.2), "caution", "No view covers 20 %"),
        (Evidence(5000, 150.0, fsc(0.2), confidence=0.2), "caution", "confidence below 0.20"),
        (Evidence(300, 150.0, fsc(0.2)), "caution", "300 particles are few"),
    ],
)
def test_each_trouble_is_told_first(evidence: Evidence, level: str, says: str) -> None:
    verdict = judge(evidence)
    assert verdict.level == level
    assert says in verdict.reasons[0]


def test_noise_only_half_maps_are_not_trusted(generator: torch.Generator) -> None:
    noise = [Volume(torch.randn(48, 48, 48, generator=generator), 3.0) for _ in range(2)]
    mask = GaussianPhantom(torch.zeros(1, 3).double(), torch.tensor([20.0]).double(), torch.ones(1).double())
    soft = mask.volume(48, 3.0)
    verdict = judge(
        Evidence(5000, 90.0, validate_half_maps(HalfMaps(*noise), Volume(soft.data / soft.data.max(), 3.0)))
    )
    assert verdict.level == "bad"


def views(tilt_max: float, generator: torch.Generator, count: int = 3000) -> torch.Tensor:
    uniform = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    lowest = math.cos(tilt_max)
    tilt = torch.acos(lowest + (1 - lowest) * uniform[:, 1])
    return euler_to_matrix(torch.stack([2 * math.pi * uniform[:, 0], tilt, 2 * math.pi * uniform[:, 2]], dim=-1))


def test_unseen_directions_follow_the_geometry_of_slices(generator: torch.Generator) -> None:
    assert unseen_share(random_rotations(3000, generator)) == 0.0
    # Slices of views within 30 degrees of z leave a double cone of half-angle 60 degrees, less the slices' width.
    cone = unseen_share(views(math.radians(30), generator))
    assert cone == pytest.approx(1 - math.cos(math.radians(55)), abs=0.06)
    # Side views all round see everything.
    side = torch.rand(3000, 3, generator=generator, dtype=torch.float64) * 2 * math.pi
    side[:, 1] = math.pi / 2
    assert unseen_share(euler_to_matrix(side)) == 0.0
    # Views along one axis miss most; a symmetry that turns this axis to others helps.
    top = views(1e-3, generator)
    assert unseen_share(top) > 0.85
    assert unseen_share(top, "O") < 0.9 * unseen_share(top)


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (59.7, "1 min 00 s"), (185.0, "3 min 05 s"), (7805.0, "2 h 10 min")]
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
