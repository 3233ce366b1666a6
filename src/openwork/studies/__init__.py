"""The pipeline from a behaviour to a judged mechanism."""

from openwork.studies.persist import load_arrays, load_study
from openwork.studies.pipeline import require_supported, study
from openwork.studies.schema import Study
from openwork.studies.settings import StudySettings

__all__ = ["Study", "StudySettings", "load_arrays", "load_study", "require_supported", "study"]
