//! Journals, ledgers and words by number, so that a row refers to one in four bytes.
//! Numbers depend on the order of arrival and never leave the books.

use std::collections::BTreeMap;

use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::ids::{DeviceId, JournalId};

/// Values by number.
#[derive(Debug, Clone)]
pub(super) struct Numbered<T> {
    values: Vec<T>,
    numbers: BTreeMap<T, u32>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { values: Vec::new(), numbers: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Numbered<T> {
    pub(super) fn number(&mut self, value: &T) -> u32 {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        let number = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.values.push(value.clone());
        self.numbers.insert(value.clone(), number);
        number
    }

    pub(super) fn value(&self, number: u32) -> Option<&T> {
        self.values.get(usize::try_from(number).ok()?)
    }
}

impl<C, T: Encode<C>> Encode<C> for Numbered<T> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        self.values.encode(encoder, context)
    }
}

impl<'b, C, T: Decode<'b, C> + Ord + Clone> Decode<'b, C> for Numbered<T> {
    fn decode(decoder: &mut Decoder<'b>, context: &mut C) -> Result<Self, minicbor::decode::Error> {
        let mut numbered = Self::default();
        for value in Vec::<T>::decode(decoder, context)? {
            numbered.number(&value);
        }
        Ok(numbered)
    }
}

/// The journals that facts came from, and whose they are.
#[derive(Debug, Clone, Default, Encode, Decode)]
pub(super) struct Journals {
    #[n(0)]
    ids: Numbered<JournalId>,
    #[n(1)]
    devices: Vec<DeviceId>,
}

impl Journals {
    pub(super) fn number(&mut self, journal: JournalId, device: DeviceId) -> u32 {
        let number = self.ids.number(&journal);
        if self.devices.len() < self.ids.values.len() {
            self.devices.push(device);
        }
        number
    }

    pub(super) fn id(&self, number: u32) -> Option<JournalId> {
        self.ids.value(number).copied()
    }

    pub(super) fn device(&self, number: u32) -> Option<DeviceId> {
        self.devices.get(usize::try_from(number).ok()?).copied()
    }

    pub(super) fn device_of(&self, journal: JournalId) -> Option<DeviceId> {
        self.device(*self.ids.numbers.get(&journal)?)
    }
}
