"""Writes the known answers of a student's networks into a card that was exported before cards had them."""

from __future__ import annotations

from pathlib import Path

from anyseg_core.runtime.engines.onnx import OnnxEngine
from anyseg_core.runtime.known_answer import KnownAnswer, known_answers
from anyseg_core.runtime.model_card import ModelCard, NetworkSpec, edited_card, load_card, read_networks


def write_known_answers(folder: Path) -> int:
    """Run every network of a student in onnxruntime and write its answers into model.json; returns how many.

    Nothing else of the card changes. Raises StudentError for a damaged folder, EngineError where a network does not
    run, OSError where the card cannot be written.
    """
    card = load_card(folder, verify=False)
    contents = read_networks(folder, card)
    count = 0
    with edited_card(folder) as written:
        for spec, entry in zip(card.networks, written["networks"], strict=True):
            answers = _answers(OnnxEngine(contents[spec.file]), spec, card)
            entry["known_answers"] = [answer.model_dump(mode="json") for answer in answers]
            count += len(answers)
    return count


def _answers(engine: OnnxEngine, spec: NetworkSpec, card: ModelCard) -> tuple[KnownAnswer, ...]:
    indices = [card.index_of(modality) for modality in spec.modalities]
    return known_answers(lambda images, index: engine.run(images, index)[0], card.input_size, indices, spec.counts)
