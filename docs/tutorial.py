"""The tutorial of the documentation as a program: python docs/tutorial.py [FOLDER]."""

# --8<-- [start:simulate]
import sys
import tempfile
from pathlib import Path

import torch

import hoarfrost as hf
from hoarfrost.analysis.alignment import align_rotations, rotation_errors
from hoarfrost.data.acquisition import Noise
from hoarfrost.data.builtin import builtin_complex
from hoarfrost.optimise.events import Event, StageDone
from hoarfrost.reconstruct.settings import AbInitioConfig

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="hoarfrost-tutorial-"))

stack = hf.simulate(
    builtin_complex(),
    count=1000,
    box=64,
    pixel_size=3.3,
    noise=Noise(snr=0.2),
    shift_px=4.0,
    generator=torch.Generator().manual_seed(1),
)
table = stack.write(folder)
print(f"{table}: {len(stack)} images")
# --8<-- [end:simulate]

# --8<-- [start:read]
particles = hf.read_particles(table)

print(f"{len(particles)} particles, box {particles.box} at {particles.pixel_size} Å")
print(f"poses: {particles.poses}")
print(f"defocus: {particles.optics.defocus_u.min():.0f} to {particles.optics.defocus_u.max():.0f} Å")
first_images = particles.images.read(torch.arange(4))
print(f"the first images: {tuple(first_images.shape)}, deviation {first_images.std():.2f}")
# --8<-- [end:read]


# --8<-- [start:abinitio]
def report(event: Event) -> None:
    """Print a line for each stage that is done."""
    if isinstance(event, StageDone):
        print(f"  {event.stage:10} {event.seconds:5.1f} s")


config = AbInitioConfig.from_preset("fast", start_batch=250)
result = hf.ab_initio(particles, config, listener=report)
# --8<-- [end:abinitio]

# --8<-- [start:judge]
print(f"half-maps agree to {result.fsc.resolution(0.143):.2f} Å")
print(f"without a mask:    {result.fsc.resolution(0.143, 'unmasked'):.2f} Å")
for number, start in enumerate(result.starts, 1):
    chosen = ", chosen" if start.chosen else ""
    print(f"start {number}: score {start.final_score:.1f}, agrees by {start.agreement:.2f}{chosen}")
print(result.verdict.headline)
for reason in result.verdict.reasons:
    print(f"- {reason}")
# --8<-- [end:judge]

# --8<-- [start:write]
hf.write_particles(result.particles, folder / "posed.star", like=table)
hf.write_map(folder / "map.mrc", result.map)
result.fsc.write_csv(folder / "fsc.csv")
# --8<-- [end:write]

# --8<-- [start:evaluate]
truth = hf.read_particles(folder / "truth.star")
scores = hf.evaluate(
    hf.read_particles(folder / "posed.star"),
    truth,
    map=result.map,
    truth_map=hf.read_map(folder / "truth.mrc"),
)
poses = scores.poses
print(f"rotations: {poses.median:.2f}° median, {poses.below_10:.1%} within 10°, hand {poses.hand}")
print(f"shifts:    {poses.shift_after_origin:.2f} px after the common origin")
print(f"map:       FSC 0.5 with the truth at {scores.map_to_truth.fsc.resolution(0.5, 'unmasked'):.1f} Å")
# --8<-- [end:evaluate]

# --8<-- [start:compare]
frame = align_rotations(result.particles.poses.rotations, truth.poses.rotations)
errors = rotation_errors(frame.apply(result.particles.poses.rotations), truth.poses.rotations).rad2deg()
for limit in (1, 2, 5, 10):
    print(f"within {limit:2}°: {(errors < limit).float().mean():.1%}")
# --8<-- [end:compare]
