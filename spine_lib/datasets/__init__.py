"""Where patients come from: the built-in sample, public data sets, and generated phantoms.

Every source yields cases, and every case loads to a scan, canonical labels and an ignore region.
"""

import lazy_loader

_NAMES = {
    "case": "Case CaseData require_cases write_split",
    "ignore": "UnlabelledBoneAtEnds",
    "phantom": "make_phantom phantom_cases",
    "public": "PUBLIC_SETS catalogue_text find_cases known_faults split_of",
    "more": "fetch_more more_sets",
    "sample": "abdomen_label_maps fetch_sample sample_cases sample_root unseen_patient",
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={module: names.split() for module, names in _NAMES.items()}
)
