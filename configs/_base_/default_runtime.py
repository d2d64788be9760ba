_base_ = './mmseg_runtime.py'
default_hooks = dict(
    checkpoint=dict(save_best='student/mIoU'),
    schedule=dict(type='mmseg_adm.DistillScheduleHook'),
    member_pause=dict(type='mmseg_adm.MemberPauseHook'),
    student_checkpoint=dict(type='mmseg_adm.StudentCheckpointHook'),
    pictures=dict(type='mmseg_adm.ConsensusPictureHook'),
    preflight=dict(type='mmseg_adm.PreflightHook'),
)
val_cfg = dict(type='mmseg_adm.MembersValLoop')
test_cfg = dict(type='mmseg_adm.MembersTestLoop')
