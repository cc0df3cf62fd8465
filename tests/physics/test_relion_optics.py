"""CTF, aberrations and magnification against RELION 3.1's own programs."""

import math
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import pytest
import torch
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.fourier.shells import radius_3d
from hoarfrost.geometry.rotations import matrix_to_euler, random_rotations
from hoarfrost.io.mrc import write_map, write_stack
from hoarfrost.physics.aberrations import antisymmetric_phase, sampled_frequency_matrices
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.types import Optics, Volume
from phantoms import GaussianPhantom

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="RELION is not installed"),
]

BOX, PIXEL = 48, 2.0
TILT = {"rlnBeamTiltX": 3.0, "rlnBeamTiltY": -2.0}
ODD = {"rlnOddZernike": [0.0, 0.0, 40.0, -60.0, 80.0, -50.0]}
EVEN = {"rlnEvenZernike": [0.3, 5.0, -4.0, 8.0, 100.0, -50.0, 30.0, 40.0, -200.0]}
MATRIX = {"rlnMagMat00": 1.05, "rlnMagMat01": -0.03, "rlnMagMat10": 0.06, "rlnMagMat11": 0.96}


def optics_with(count: int, generator: torch.Generator, terms: dict[str, float | list[float]]) -> Optics:
    defocus = 8000 + 8000 * torch.rand(count, generator=generator, dtype=torch.float64)
    optics = Optics.uniform(count, pixel_size=PIXEL).replace(
        defocus_u=defocus,
        defocus_v=defocus - 600,
        defocus_angle=math.pi * torch.rand(count, generator=generator, dtype=torch.float64),
    )

    def rows(*values: object) -> Tensor:
        row = torch.tensor(values, dtype=torch.float64)
        return row.expand(count, *row.shape).clone()

    if "rlnBeamTiltX" in terms:
        optics = optics.replace(beam_tilt=rows(terms["rlnBeamTiltX"], terms["rlnBeamTiltY"]))
    if "rlnOddZernike" in terms:
        optics = optics.replace(odd_zernike=rows(*terms["rlnOddZernike"]))
    if "rlnEvenZernike" in terms:
        optics = optics.replace(even_zernike=rows(*terms["rlnEvenZernike"]))
    if "rlnMagMat00" in terms:
        matrix = [[terms[f"rlnMagMat{i}{j}"] for j in (0, 1)] for i in (0, 1)]
        optics = optics.replace(magnification=rows(*matrix))
    return optics


def write_star(path: Path, optics: Optics, rotations: Tensor, terms: dict[str, float | list[float]]) -> None:
    def block(name: str, table: list[dict[str, object]]) -> str:
        head = f"\n# version 30001\n\ndata_{name}\n\nloop_\n" + "".join(f"_{column}\n" for column in table[0])
        return head + "".join(" ".join(str(value) for value in row.values()) + "\n" for row in table)

    group: dict[str, object] = {
        "rlnOpticsGroupName": "one", "rlnOpticsGroup": 1, "rlnVoltage": 300, "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.1, "rlnImagePixelSize": PIXEL, "rlnImageSize": BOX, "rlnImageDimensionality": 2,
    }  # fmt: skip
    group |= {k: "[" + ",".join(map(str, v)) + "]" if isinstance(v, list) else v for k, v in terms.items()}
    angles = torch.rad2deg(matrix_to_euler(rotations)).tolist()
    particles: list[dict[str, object]] = [
        {
            "rlnImageName": f"{i + 1:06d}@images.mrcs", "rlnOpticsGroup": 1, "rlnAngleRot": rot, "rlnAngleTilt": tilt,
            "rlnAnglePsi": psi, "rlnOriginXAngst": 0, "rlnOriginYAngst": 0, "rlnDefocusU": float(optics.defocus_u[i]),
            "rlnDefocusV": float(optics.defocus_v[i]), "rlnDefocusAngle": math.degrees(optics.defocus_angle[i]),
        }
        for i, (rot, tilt, psi) in enumerate(angles)
    ]  # fmt: skip
    path.write_text(block("optics", [group]) + block("particles", particles) + "\n")


@pytest.mark.parametrize("terms", [{}, EVEN, MATRIX], ids=["plain", "even", "magnification"])
def test_transfer_function(terms: dict[str, float | list[float]], tmp_path: Path, generator: torch.Generator) -> None:
    """``relion_project --ctf`` of a point at the origin is the transform of the CTF."""
    optics = optics_with(3, generator, terms)
    point = torch.zeros(BOX, BOX, BOX)
    point[BOX // 2, BOX // 2, BOX // 2] = 1.0
    write_map(tmp_path / "point.mrc", Volume(point, PIXEL))
    write_star(tmp_path / "views.star", optics, torch.eye(3).double().expand(3, 3, 3), terms)
    command = ["relion_project", "--i", "point.mrc", "--ang", "views.star", "--o", "views", "--ctf"]
    subprocess.run([*command, "--angpix", str(PIXEL)], cwd=tmp_path, check=True, capture_output=True)
    band = Band.to_nyquist(BOX)
    images = torch.from_numpy(mrcfile.read(tmp_path / "views.mrcs").copy()).float()
    theirs = band.from_images(images).real * BOX
    assert (theirs - contrast_transfer_function(optics, band.frequency)).abs().max() < 1e-4


@dataclass
class Aberrant:
    """Images of a phantom in random views, from its analytic transform by the image model of the conventions."""

    phantom: GaussianPhantom
    rotations: Tensor
    optics: Optics

    def images(self) -> Tensor:
        band, phantom = Band.to_nyquist(BOX), self.phantom
        frequency = (band.frequency / PIXEL).expand(len(self.optics), -1, -1)
        matrices = sampled_frequency_matrices(self.optics, PIXEL)
        if matrices is not None:
            frequency = frequency @ matrices.mT
        angle = -2 * math.pi * (frequency @ self.rotations[:, :2]) @ phantom.centres.T
        envelope = torch.exp(-2 * math.pi**2 * frequency.square().sum(-1, keepdim=True) * phantom.sigmas**2)
        transform = (phantom.masses * envelope * torch.polar(torch.ones_like(angle), angle)).sum(-1)
        transform = transform * contrast_transfer_function(self.optics, band.frequency, dtype=torch.float64)
        phase = antisymmetric_phase(self.optics, band.frequency, dtype=torch.float64)
        if phase is not None:
            transform = transform * torch.polar(torch.ones_like(phase), phase)
        return band.to_images(transform / BOX).float()


def shell_correlation(first: Tensor, second: Tensor) -> Tensor:
    one, two = (torch.fft.fftshift(torch.fft.fftn(v.double())).flatten() for v in (first, second))
    shells = radius_3d((BOX,) * 3, (BOX // 2,) * 3).round().long().flatten()
    cross, a, b = (
        torch.bincount(shells, weights=w) for w in ((one * two.conj()).real, one.abs().square(), two.abs().square())
    )
    return cross / (a * b).sqrt()


@pytest.mark.parametrize(
    ("terms", "wrong"),
    [
        (TILT, {key: -value for key, value in TILT.items()}),
        (ODD, {"rlnOddZernike": [-value for value in ODD["rlnOddZernike"]]}),
        (EVEN | ODD, {"rlnEvenZernike": [-value for value in EVEN["rlnEvenZernike"]]}),
        (MATRIX, {"rlnMagMat01": 0.06, "rlnMagMat10": -0.03}),
        (MATRIX | TILT, {"rlnMagMat00": 0.96, "rlnMagMat11": 1.05}),
    ],
    ids=["tilt", "odd", "even and odd", "magnification", "magnification and tilt"],
)
def test_reconstruction_undoes_what_the_image_model_does(
    terms: dict[str, float | list[float]],
    wrong: dict[str, float | list[float]],
    tmp_path: Path,
    generator: torch.Generator,
) -> None:
    """``relion_reconstruct`` finds the phantom in our images by the right table, and not by a wrong one."""
    phantom = GaussianPhantom.random(40, 32.0, generator, sigma=3.0)
    aberrant = Aberrant(phantom, random_rotations(400, generator), optics_with(400, generator, terms))
    write_stack(tmp_path / "images.mrcs", [aberrant.images()], count=400, box=BOX, pixel_size=PIXEL)
    curves = []
    for table in (terms, terms | wrong):
        write_star(tmp_path / "table.star", aberrant.optics, aberrant.rotations, table)
        command = ["relion_reconstruct", "--i", "table.star", "--o", "map.mrc", "--ctf", "--angpix", str(PIXEL)]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        found = torch.from_numpy(mrcfile.read(tmp_path / "map.mrc").copy())
        curves.append(shell_correlation(found, phantom.volume(BOX, PIXEL).data))
    right, other = curves
    assert right[1:20].min() > 0.98
    assert other[1:20].min() < 0.9
