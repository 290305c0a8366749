import numpy as np
from metrics.anomaly.detector import StreamingDetector
def factory(n):
    d=StreamingDetector(n)
    def step(t,x): return d.update(t,x).news
    return step
