//! What becomes of a recipient: facts turned into fates, and the reports that follow from them.

pub mod bounce;
