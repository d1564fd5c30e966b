//! The resources users write: types, defaults, validation, and conversion to the model.
