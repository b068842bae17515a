"""Calibration: the ranges of the layers to trim, measured over some batches."""

from __future__ import annotations

import logging
from dataclasses import replace

from ristretto_cli.formats.number_format import FLAG, Role
from ristretto_cli.quantize.prepare import Prepared
from ristretto_cli.quantize.trimmable import Trimmable, family_of
from ristretto_cli.quantize.wires import with_ranges_of_wires
from ristretto_cli.scoring.batches import CachedBatches
from ristretto_cli.scoring.calibrate import Probe, measure_ranges
from ristretto_cli.scoring.evaluation import OnBatch
from ristretto_cli.scoring.step_timer import StepTimer
from ristretto_cli.scoring.user_data import check_has_data

log = logging.getLogger("ristretto")

_IN_THE_LOG = {Role.LAYER_IN: "input", Role.LAYER_OUT: "output", Role.PARAMS: "parameters"}


def calibrate(
    prepared: Prepared, *, test_batches: CachedBatches | None, on_batch: OnBatch, timer: StepTimer
) -> tuple[Trimmable, ...]:
    """The layers to trim with their ranges, which are logged; RistrettoError for an unsuitable fixed width.

    test_batches: the batches of the TEST net, used if calibration is on TEST data.
    """
    config = prepared.config
    net = prepared.calibration_net()
    check_has_data(net, config.data)
    log.info("Measuring ranges.")
    batches = test_batches if net is prepared.net else None
    ranges = measure_ranges(
        net,
        frozenset(layer.name for layer in prepared.trimmable),
        config.calibration_iterations,
        probe=Probe(legacy=config.legacy, samples=prepared.mode.needs_samples() and not config.legacy),
        rng=prepared.rng,
        execution=config.execution,
        batches=batches or CachedBatches(net, data=config.data, check_labels=False),
        on_batch=on_batch,
        timer=timer,
    )
    layers = tuple(
        Trimmable(layer, family_of(layer), replace(ranges[layer.name], weights=net.weights.get(layer.params[0].key)))
        for layer in prepared.trimmable
        if layer.name in ranges
    )
    if prepared.mode.needs_same_formats():
        joined = with_ranges_of_wires(prepared.net, layers)
        if all(new is old for new, old in zip(joined, layers, strict=True)):
            log.warning("--same_formats has no effect: no two layers write or read the same activation.")
        layers = joined
    if config.mode_options.get("unsigned") == FLAG[True] and not any(each.ranges.never_negative for each in layers):
        log.warning("--unsigned has no effect: the input and the output of each layer may be negative.")
    for each in layers:
        lengths = prepared.mode.integer_lengths(each.ranges)
        shown = [f"integer length {_IN_THE_LOG[role]}={bits}" for role, bits in lengths.items()]
        if shown:
            log.info("Layer %s, %s", each.layer.name, ", ".join(shown))
    prepared.check_given_widths([each.ranges for each in layers])
    return layers
