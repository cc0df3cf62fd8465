from dataclasses import dataclass
from typing import Any
@dataclass
class StageStarted: stage:str; title:str; steps:int
@dataclass
class StepDone: stage:str; step:int; steps:int; seconds:float; values:Any
@dataclass
class StageDone: stage:str; seconds:float
@dataclass
class Message: text:str; level:str="info"
Event=Any; Listener=Any
def silent(e): pass
