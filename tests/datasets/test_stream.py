import random
import runpy
from itertools import islice
from pathlib import Path

import mmseg
import numpy as np
import pytest
import torch
from factory import demo_config
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import RepeatDataset

from mmseg_adm.datasets import StreamDataset, StreamSampler
from mmseg_adm.datasets import stream as stream_module
from mmseg_adm.datasets.stream import StreamPosition, seed_everything

TEN = range(10)


def take(sampler, count):
    return list(islice(sampler, count))


def images(positions):
    return [image for image, _ in positions]


@pytest.fixture
def sampler_of(monkeypatch):
    """A sampler as one of several processes builds it."""

    def build(rank=0, world_size=1, dataset=TEN, seed=3, skip=0, **options):
        monkeypatch.setattr(stream_module, 'get_dist_info', lambda: (rank, world_size))
        sampler = StreamSampler(StreamDataset(dataset), seed, **options)
        if skip:
            sampler.skip(skip)
        return sampler

    return build


def test_each_epoch_is_a_permutation_of_its_own(sampler_of):
    seen = images(take(sampler_of(), 30))
    epochs = [seen[start : start + 10] for start in (0, 10, 20)]
    assert all(sorted(epoch) == list(TEN) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert list(TEN) not in epochs


def test_the_stream_follows_from_the_seed(sampler_of):
    first = take(sampler_of(), 30)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global state must not matter
    assert take(sampler_of(), 30) == first
    other = take(sampler_of(seed=4), 30)
    assert images(other) != images(first)
    assert {seed for _, seed in other}.isdisjoint(seed for _, seed in first)


def test_each_position_has_a_seed_of_its_own(sampler_of):
    seeds = [seed for _, seed in take(sampler_of(), 1000)]
    assert len(set(seeds)) == 1000


def test_without_a_seed_processes_share_a_drawn_one(sampler_of, monkeypatch):
    monkeypatch.setattr(stream_module, 'sync_random_seed', lambda: 3)
    assert take(sampler_of(seed=None), 20) == take(sampler_of(seed=3), 20)


def test_without_shuffling_images_come_in_order(sampler_of):
    positions = take(sampler_of(shuffle=False), 25)
    assert images(positions) == [*TEN, *TEN, *range(5)]
    assert len({seed for _, seed in positions}) == 25


@pytest.mark.parametrize('world_size', [2, 3])
def test_processes_share_out_the_stream(world_size, sampler_of):
    whole = take(sampler_of(), 30)
    shares = [take(sampler_of(rank, world_size), 30 // world_size) for rank in range(world_size)]
    for rank, share in enumerate(shares):
        assert share == whole[rank::world_size]
    # 30 positions are three epochs, though the epochs of 10 cannot be divided by 3.
    assert sorted(image for share in shares for image in images(share)) == sorted([*TEN] * 3)


@pytest.mark.parametrize(('rank', 'world_size'), [(0, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize('count', [1, 7, 10, 23])
def test_skipping_is_iterating(rank, world_size, count, sampler_of):
    whole = take(sampler_of(rank, world_size), count + 15)
    assert take(sampler_of(rank, world_size, skip=count), 15) == whole[count:]


def test_a_step_of_as_many_images_has_the_same_ones_in_any_number_of_processes(sampler_of):
    together, steps = 6, 3

    def read_in_the_fourth_step(world_size):
        share = together // world_size
        samplers = [sampler_of(rank, world_size, skip=steps * share) for rank in range(world_size)]
        return {position for sampler in samplers for position in take(sampler, share)}

    assert read_in_the_fourth_step(1) == read_in_the_fourth_step(2) == read_in_the_fourth_step(3)


def test_skips_add_up(sampler_of):
    sampler = sampler_of(skip=4)
    sampler.skip(3)
    assert take(sampler, 5) == take(sampler_of(skip=7), 5)


@pytest.mark.parametrize(('world_size', 'share'), [(1, 7), (2, 4), (3, 3)])
def test_the_length_is_this_processs_share_of_an_epoch(world_size, share, sampler_of):
    assert len(sampler_of(1 % world_size, world_size, dataset=range(7))) == share


def test_an_epoch_ends_and_is_that_of_the_endless_stream(sampler_of):
    whole = take(sampler_of(), 30)
    sampler = sampler_of()
    for epoch in (0, 2, 1):
        sampler.read_epoch(epoch)
        assert list(sampler) == whole[10 * epoch : 10 * epoch + 10]


@pytest.mark.parametrize('world_size', [2, 3, 4])
def test_every_process_ends_an_epoch_after_as_many(world_size, sampler_of):
    shares = []
    for rank in range(world_size):
        sampler = sampler_of(rank, world_size)
        sampler.read_epoch(3)
        shares.append(list(sampler))
    assert {len(share) for share in shares} == {-(-10 // world_size)}
    in_order = [image for row in zip(*shares, strict=True) for image in images(row)]
    assert sorted(in_order[:10]) == list(TEN)
    assert in_order[10:] == in_order[: len(in_order) - 10], 'the first ones fill the last round'
    seeds = [seed for share in shares for _, seed in share]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize('kind', ['bare', 'repeated'])
def test_a_data_set_that_reads_no_positions_is_refused(kind, dataset, city):
    # A repetition would take positions for numbers.
    other = dataset.dataset
    if kind == 'repeated':
        inner = demo_config(city, '').train_dataloader.dataset
        other = RepeatDataset(inner, times=2)
    text = rf'positions that {type(other).__name__} cannot read: set train_dataloader\.dataset=dict'
    with pytest.raises(ValueError, match=rf"{text}\(type='mmseg_adm\.StreamDataset', dataset=dict"):
        StreamSampler(other)


def test_an_empty_data_set_is_refused():
    with pytest.raises(ValueError, match='the training set is empty: look at its data_root'):
        StreamSampler(StreamDataset([]))


# -------------------------------------------------------------------------- the data set


@pytest.fixture
def dataset(city):
    config = demo_config(city, '').train_dataloader.dataset.dataset
    return StreamDataset(dict(config, serialize_data=False))


def read(dataset, position):
    sample = dataset[position]
    return sample['inputs'], sample['data_samples'].gt_sem_seg.data


def test_a_position_is_one_crop_whoever_reads_it_and_when(dataset, sampler_of):
    positions = take(StreamSampler(dataset, 3), 6)
    first = [read(dataset, position) for position in positions]
    for index in (5, 0, 3, 3, 1):
        random.random()
        torch.rand(3)
        np.random.rand(index)  # noqa: NPY002 - mmseg's transforms draw from the global state
        image, labels = read(dataset, positions[index])
        assert torch.equal(image, first[index][0])
        assert torch.equal(labels, first[index][1])


def test_positions_of_one_image_are_different_crops(dataset):
    crops = [read(dataset, StreamPosition(2, seed))[0] for seed in range(4)]
    for index, crop in enumerate(crops):
        assert not any(torch.equal(crop, other) for other in crops[:index])


def test_positions_name_their_image(dataset):
    for image in (0, 5):
        expected = dataset.dataset.get_data_info(image)['img_path']
        assert dataset[StreamPosition(image, 0)]['data_samples'].img_path == expected


def test_an_integer_draws_as_the_data_set_inside_does(dataset):
    for seed in (1, 2):
        seed_everything(seed)
        found = read(dataset, 3)
        seed_everything(seed)
        expected = read(dataset.dataset, 3)
        assert all(map(torch.equal, found, expected))


def test_any_other_index_is_refused(dataset):
    with pytest.raises(TypeError, match="'tuple' object cannot be interpreted as an integer"):
        dataset[0, 1]


def test_what_mmengine_asks_of_a_data_set(dataset):
    assert len(dataset) == len(dataset.dataset) == 8
    assert dataset.metainfo['classes'][0] == 'road'


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_seed_everything():
    seed_everything(1, 2)
    first = draws()
    seed_everything(1, 2)
    assert draws() == first
    for keys in ((1, 3), (2, 1), (1, 2, 1)):
        seed_everything(*keys)
        assert all(found != before for found, before in zip(draws(), first, strict=True))


def test_a_cache_gives_the_same_data_and_decodes_once(city, dataset):
    config = demo_config(city, '').train_dataloader.dataset.dataset
    cached = StreamDataset(config, cache=True)
    positions = [StreamPosition(image, seed) for image, seed in ((0, 1), (1, 2), (0, 3), (0, 1))]
    (remembered, *_) = cached.dataset.pipeline.transforms
    (load, *_) = remembered.transforms
    reads = []

    def counted(results):
        reads.append(results['img_path'])
        return load(results)

    remembered.transforms[0] = counted
    for position in positions:
        found, sample = cached[position], dataset[position]
        assert torch.equal(found['inputs'], sample['inputs'])
        labels = [each['data_samples'].gt_sem_seg.data for each in (found, sample)]
        assert torch.equal(*labels)
        assert found['data_samples'].metainfo == sample['data_samples'].metainfo
    assert len(reads) == len(set(reads)) == 2


def test_a_cached_set_draws_again_where_a_transform_refuses(city):
    config = demo_config(city, '').train_dataloader.dataset.dataset
    samples = []
    for cache in (False, True):
        whole = StreamDataset(config, cache=cache)
        refused = []

        def refuse_once(data, refused=refused):
            refused.append(data)
            return None if len(refused) == 1 else data

        whole.dataset.pipeline.transforms.insert(2 - cache, refuse_once)
        samples.append(whole[StreamPosition(0, 5)]['inputs'])
        assert len(refused) == 2
    assert torch.equal(*samples)


@pytest.mark.parametrize('kind', ['mosaic', 'RepeatDataset', 'ConcatDataset'])
def test_a_cache_is_that_of_the_data_sets_inside(kind, city, monkeypatch):
    reads = []
    load = LoadImageFromFile.transform

    def counted(transform, results):
        reads.append(results['img_path'])
        return load(transform, results)

    monkeypatch.setattr(LoadImageFromFile, 'transform', counted)
    config = demo_config(city, '').train_dataloader.dataset.dataset
    loads, rest = config.pipeline[:2], config.pipeline[2:]
    wrapped = dict(
        mosaic=dict(
            type='MultiImageMixDataset',
            dataset=dict(config, pipeline=loads),
            pipeline=[dict(type='RandomMosaic', prob=1, img_scale=(48, 96)), *rest],
        ),
        RepeatDataset=dict(type='RepeatDataset', times=2, dataset=config),
        ConcatDataset=dict(type='ConcatDataset', datasets=[config, config]),
    )[kind]
    plain, cached = (StreamDataset(wrapped, cache=cache) for cache in (False, True))
    positions = [StreamPosition(index, seed) for seed in (1, 2) for index in range(8)]
    expected = [read(plain, position) for position in positions]
    reads.clear()
    for position, sample in zip(positions, expected, strict=True):
        assert all(map(torch.equal, read(cached, position), sample))
    assert len(reads) == len(set(reads)) == 8


def test_a_data_set_of_pytorch_is_enough():
    wrapped = StreamDataset([5, 6])
    wrapped.full_init()
    assert [wrapped[StreamPosition(1, 0)], wrapped[0]] == [6, 5]
    assert not hasattr(wrapped, 'metainfo')


@pytest.mark.core
def test_what_goes_through_a_data_set_finds_its_end(dataset):
    assert [sample['data_samples'].img_path for sample in dataset] == [
        dataset.dataset.get_data_info(index)['img_path'] for index in range(8)
    ]


# With OpenCV 5 upstream's cannot draw, whatever the data set.
def test_mmsegs_own_browser_shows_every_image(city, tmp_path, monkeypatch):
    config = demo_config(city, tmp_path / 'run')
    config.train_dataloader.dataset.dataset.indices = 2
    config.dump(tmp_path / 'written.py')
    script = Path(mmseg.__file__).parent / '.mim/tools/analysis_tools/browse_dataset.py'
    argv = [script.name, tmp_path / 'written.py', '--output-dir', tmp_path / 'out', '--not-show']
    monkeypatch.setattr('sys.argv', list(map(str, argv)))
    runpy.run_path(str(script), run_name='__main__')
    assert len(list((tmp_path / 'out').glob('*.png'))) == 2


def test_a_cache_needs_a_pipeline():
    with pytest.raises(ValueError, match='cache needs a data set with a pipeline, not list'):
        StreamDataset([1, 2], cache=True)
