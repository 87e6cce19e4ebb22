use crate::scenarios;
scenarios![];
