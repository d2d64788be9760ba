"""A bridge, which trains, between a trained teacher and the student."""

_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(
        student=dict(),
        teacher=dict(frozen=True),
        bridge=dict(type='mmseg_adm.TeacherBridge', teacher='teacher', init='fresh'),
    ),
    methods=dict(
        sokd=dict(
            type='mmseg_adm.SOKD', tau=4.0, weight=1.0, teacher_weight=1.0, student_weight=1.0
        ),
    ),
)
