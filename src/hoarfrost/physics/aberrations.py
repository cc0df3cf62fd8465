def antisymmetric_phase(o,f): return None
def sampled_frequency_matrices(o,p): return None
