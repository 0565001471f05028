"""Samples of metrics, as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from flask_sse_emitters import CloseReason

#: Values of samples by name and labels, as Prometheus writes them.
Samples = dict[str, float]


def read(text: str) -> Samples:
    samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return samples


def closed(samples: Samples) -> Samples:
    found = {reason.value: f'sse_streams_closed_total{{reason="{reason.value}"}}' for reason in CloseReason}
    return {reason: samples[name] for reason, name in found.items() if name in samples}
