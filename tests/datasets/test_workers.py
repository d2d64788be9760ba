from itertools import islice

import torch
import torch.multiprocessing
from factory import demo_config
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils.collate import default_collate

from mmseg_adm.datasets import share_by_file_name


class Strategies(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return torch.tensor(torch.multiprocessing.get_sharing_strategy() == 'file_system')


def test_workers_share_by_file_name_and_nobody_else():
    before = torch.multiprocessing.get_sharing_strategy()
    loader = DataLoader(Strategies(), num_workers=1, worker_init_fn=share_by_file_name,
                        collate_fn=default_collate)  # fmt: skip
    assert [bool(batch) for batch in loader] == [True, True]
    assert torch.multiprocessing.get_sharing_strategy() == before == 'file_descriptor'


def test_the_batches_are_the_same(city):
    def batches(**options):
        config = demo_config(city, '').train_dataloader | options
        loader = Runner.build_dataloader(config, seed=3)
        return list(islice(loader, 3))

    workers = dict(num_workers=1, persistent_workers=True)
    plain = batches(num_workers=0, persistent_workers=False)
    shared = batches(**workers, worker_init_fn=dict(type='mmseg_adm.share_by_file_name'))
    for first, second in zip(plain, shared, strict=True):
        assert all(map(torch.equal, first['inputs'], second['inputs']))
        for one, other in zip(first['data_samples'], second['data_samples'], strict=True):
            assert torch.equal(one.gt_sem_seg.data, other.gt_sem_seg.data)
