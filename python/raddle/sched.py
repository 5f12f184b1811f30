"""placeholder while being written"""
from sched import *
from sched import scheduler as _s
class scheduler(_s): pass
import raddle.threading
