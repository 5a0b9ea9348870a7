"""Raw label values, class names, class indices."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.labels import AT_ONCE, Labels, class_counts, parse_labels
from pipeline.errors import UserError


def test_values_become_indices_and_come_back() -> None:
    labels = Labels({0: "background", 255: "lung"})
    mask = np.array([[0, 255], [255, 0]], np.uint8)
    indices = labels.to_index(mask)
    assert indices.dtype == np.uint8
    assert indices.tolist() == [[0, 1], [1, 0]]
    assert labels.to_value(indices).dtype == np.uint8
    assert labels.to_value(indices).tolist() == mask.tolist()


def test_values_that_share_a_name_are_merged_and_the_first_is_written() -> None:
    labels = Labels({4: "lung", 0: "background", 2: "lung", 9: "tumour", 7: "background"})
    assert labels.names == ("background", "lung", "tumour")
    assert labels.foreground == ("lung", "tumour")
    assert labels.to_index(np.array([0, 2, 4, 7, 9], np.int16)).tolist() == [0, 1, 1, 0, 2]
    assert labels.to_value(np.array([0, 1, 2])).tolist() == [0, 2, 9]


def test_the_background_is_index_0_even_if_other_values_are_lower() -> None:
    labels = Labels({-5: "air", 1: "lung"})
    assert labels.names == ("background", "air", "lung")
    assert labels.to_index(np.array([-5, 0, 1], np.int8)).tolist() == [1, 0, 2]
    assert labels.to_value(np.array([0, 1, 2])).dtype == np.int16


@pytest.mark.parametrize(
    ("values", "dtype"),
    [({1: "a"}, np.uint8), ({256: "a"}, np.uint16), ({-1: "a"}, np.int16), ({-1: "b", 65535: "a"}, np.int32)],
)
def test_masks_are_written_in_the_smallest_type(values: dict[int, str], dtype: type) -> None:
    labels = Labels(values)
    written = labels.to_value(np.arange(len(labels.names)))
    assert written.dtype == dtype
    assert labels.to_index(written).tolist() == list(range(len(labels.names)))


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (np.array([0, 1, 7]), "7"),
        (np.array([0, 2]), "2"),
        (np.array([-1, 0]), "-1"),
        (np.array([0, 0.5]), "0.5"),
        (np.array([np.nan]), "nan"),
        (np.array([np.inf]), "inf"),
        (np.array([1e12]), "1e"),
        (np.array([2**40]), str(2**40)),
        (np.array([255], np.uint8), "255"),
    ],
)
def test_what_is_not_declared_is_named(array: np.ndarray, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Labels({0: "background", 1: "lung", 3: "tumour"}).to_index(array)


def test_a_large_mask_is_taken_in_blocks_in_the_order_of_its_memory() -> None:
    labels = Labels({0: "background", 7: "lung", 3: "tumour"})
    mask = np.random.default_rng(0).choice([0, 3, 7], size=(70, 80, 90)).astype(np.int16)
    mask = np.asfortranarray(mask)
    assert mask.size > AT_ONCE
    found = labels.to_index(mask)
    assert found.flags.f_contiguous and found.dtype == np.uint8
    wanted = {0: 0, 7: labels.names.index("lung"), 3: labels.names.index("tumour")}
    assert all(np.array_equal(found == index, mask == value) for value, index in wanted.items())
    part = mask[::2, 1:, :]  # of a larger array
    assert np.array_equal(labels.to_index(part), found[::2, 1:, :])
    assert class_counts(found).tolist()[:3] == [(found == index).sum() for index in range(3)]
    mask[-1, -1, -1] = 5
    with pytest.raises(ValueError, match="5"):
        labels.to_index(mask)


def test_whole_floats_are_values_and_nothing_stays_nothing() -> None:
    labels = Labels({1: "lung"})
    assert labels.to_index(np.array([[0.0, 1.0]], np.float32)).tolist() == [[0, 1]]
    assert labels.to_index(np.zeros((0, 3))).shape == (0, 3)


def test_yaml_keys_may_be_text() -> None:
    assert parse_labels({"0": "background", "1": "lung"}, "data.labels").values == {0: "background", 1: "lung"}


@pytest.mark.parametrize(
    "mapping",
    [{}, {"lung": 1}, {0: "background"}, {1.5: "lung"}, {1: ""}, {1: 2}, {"1": "a", 1: "b"}, {1: ["a"]}, {10**9: "a"}],
)
def test_mappings_that_mean_nothing_are_refused(mapping: dict[object, object]) -> None:
    with pytest.raises(UserError, match=r"data\.labels"):
        parse_labels(mapping, "data.labels")


def test_256_classes_are_too_many_for_uint8() -> None:
    with pytest.raises(ValueError, match="255"):
        Labels({value: f"class {value}" for value in range(1, 257)})
