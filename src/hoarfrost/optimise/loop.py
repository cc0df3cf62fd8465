import time
from typing import Any
from hoarfrost.optimise.events import *
State=dict; CheckpointStore=Any; Stage=Any
def run_stages(stages,state,*,store=None,listener=silent,should_stop=lambda:False,save_every_s=20.):
    for st in stages:
        listener(StageStarted(st.name,st.title,st.steps)); t0=time.perf_counter()
        for i in range(st.steps):
            t=time.perf_counter(); state,v=st.run(state,i); listener(StepDone(st.name,i+1,st.steps,time.perf_counter()-t,v))
        listener(StageDone(st.name,time.perf_counter()-t0))
    return state
