"""Commands on one particle of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cbdetach.cli.common import FigureOut, FinishedRun, Particle, Quiet, one_line_errors


def streamlines(
    run: FinishedRun,
    out: FigureOut = Path("cbdetach_particle"),
    particle: Particle = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the points that ways start from.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Draw one particle's shortest ways to its contact.

    On a slice, and on its surface.
    """
    with one_line_errors(quiet, verbose=False):
        from cbdetach import particle as _particle

        for path in _particle.streamlines(run, out, particle=particle, seed=seed):
            if not quiet:
                print(path)


def sweep(
    run: FinishedRun,
    out: FigureOut = Path("cbdetach_particle"),
    particle: Particle = None,
    steps: Annotated[int, typer.Option("--steps", help="Steps of equal area.")] = 20,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the patches.")] = 0,
    measured: Annotated[bool, typer.Option("--measured", help="Start from the particle's own contact.")] = False,
    direction: Annotated[str, typer.Option("--direction", help="Side that is lost first: z,y,x.")] = "1,0,0",
    electronic: Annotated[
        str | None, typer.Option("--electronic", help="Formula of d, detachment, and r, length ratio (default: 1 / r).")
    ] = None,
    ionic: Annotated[str | None, typer.Option("--ionic", help="Formula, as --electronic (default: d).")] = None,
    curves: Annotated[Path | None, typer.Option("--curves", help="CSV instead: detachment, electronic, ionic.")] = None,
    quiet: Quiet = False,
) -> None:
    """Take contact from one particle, step by step.

    Draws its diffusion length, and a schematic model of accessibility, against detachment.
    """
    with one_line_errors(quiet, verbose=False):
        from cbdetach import particle as _particle
        from cbdetach.volume import parse_direction

        written = _particle.detachment_sweep(
            run,
            out,
            particle=particle,
            steps=steps,
            seed=seed,
            measured=measured,
            direction=parse_direction(direction),
            electronic=electronic,
            ionic=ionic,
            curves=curves,
        )
        for path in written:
            if not quiet:
                print(path)


def correlate(
    run: FinishedRun,
    map: Annotated[str, typer.Option("--map", help="One image: TIFF, file.h5:/dataset, .npy; 0 or nan is outside.")],
    out: FigureOut = Path("cbdetach_particle"),
    particle: Particle = None,
    pixel_size: Annotated[
        float | None, typer.Option("--pixel-size", help="Of the map, micrometres (default: from the file).")
    ] = None,
    map_range: Annotated[
        str | None, typer.Option("--map-range", help="LOW,HIGH: only such values are the particle.")
    ] = None,
    map_name: Annotated[str, typer.Option("--map-name", help="What the map shows, with its unit.")] = "map",
    direction: Annotated[str, typer.Option("--direction", help="Of the view: z, y, x or z,y,x.")] = "z",
    min_thickness: Annotated[
        float | None, typer.Option("--min-thickness", help="Thinner rays are left out, um (default: 2 or 4 voxels).")
    ] = None,
    erosion: Annotated[
        float | None, typer.Option("--erosion", help="Rim left out of r, um (default: as for the run's densities).")
    ] = None,
    rotation: Annotated[str, typer.Option("--rotation", help="LOW,HIGH: degrees to look in.")] = "-180,180",
    scale: Annotated[str, typer.Option("--scale", help="LOW,HIGH: scales to look in.")] = "0.9,1.1",
    negative: Annotated[bool, typer.Option("--negative", help="High density goes with low values.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Correlate one particle's density with a map of it.

    Its density is projected and registered to the map first.
    """
    with one_line_errors(quiet, verbose=False):
        from cbdetach import particle_map
        from cbdetach.volume import parse_direction, parse_range

        where, found = particle_map.correlate(
            run,
            map,
            out,
            particle=particle,
            pixel_um=pixel_size,
            map_range=None if map_range is None else parse_range(map_range, "--map-range"),
            map_name=map_name,
            direction=parse_direction(direction),
            min_thickness_um=min_thickness,
            erosion_um=erosion,
            rotation_deg=parse_range(rotation, "--rotation"),
            scale=parse_range(scale, "--scale"),
            negative=negative,
            seed=seed,
        )
        if not quiet:
            print(f"rotation {where.rotation_deg:.2f} degrees, scale {where.scale:.4f}, overlap {where.overlap:.2f}")
            print(f"r {found.r:.3f}, {found.level:.0%} interval {found.low:.3f} to {found.high:.3f}")
