"""Read training data as named shards of rows: files of several formats, and the streams of other libraries."""

from __future__ import annotations

from raysgd_local.sources.choice import as_source, files
from raysgd_local.sources.huggingface import HuggingFace
from raysgd_local.sources.mds import Mds
from raysgd_local.sources.packing import Pack
from raysgd_local.sources.parquet import Parquet
from raysgd_local.sources.ray_data import RayData
from raysgd_local.sources.skipping import SkippingBad
from raysgd_local.sources.source import Source, shard_names
from raysgd_local.sources.text import JsonLines, TextLines
from raysgd_local.sources.torch_iterable import TorchIterable
from raysgd_local.sources.transform import Transform
from raysgd_local.sources.webdataset import WebDatasetTar

__all__ = [
    "HuggingFace",
    "JsonLines",
    "Mds",
    "Pack",
    "Parquet",
    "RayData",
    "SkippingBad",
    "Source",
    "TextLines",
    "TorchIterable",
    "Transform",
    "WebDatasetTar",
    "as_source",
    "files",
    "shard_names",
]
