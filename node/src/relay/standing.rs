//! Whether this relay is the one that pays, and how it comes to be.

use crdt_model::document::{DocumentId, field_key};
use crdt_model::record::Ledger;
use crdt_model::shop::{Operation, PAYING_RELAY, PromiseLimits, Settings, Shop};

use crate::shop_handle::{RecordError, ShopHandle, Stopped};

/// Whether a relay pushes, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// The settings name this ledger.
    Paying,
    /// The settings name nobody.
    Unclaimed,
    /// The settings name another relay: this one only stores.
    Storing {
        /// The one that pays.
        named: Ledger,
    },
    /// The settings name this relay in another epoch, as after a restore: the owner has to
    /// move its payments to the new epoch.
    Frozen {
        /// What the settings name.
        named: Ledger,
    },
    /// The settings name several relays at once: a person must decide.
    Disputed,
    /// The settings name another shortcode than this relay's credentials are for.
    OtherShortcode,
}

/// What the shop says about who pays.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) ledger: Ledger,
    settings: Settings,
    disputed: bool,
    /// Everything stored is loaded, so the settings are what this device knows.
    loaded: bool,
    /// It holds something that another device recorded.
    pub(super) met_others: bool,
}

impl View {
    pub(super) async fn ask(shop: &ShopHandle) -> Result<Self, Stopped> {
        shop.ask(Self::of).await
    }

    pub(super) fn of(shop: &Shop) -> Self {
        let device = shop.device();
        let epoch = shop.journal(shop.own_journal()).map_or(0, |own| own.info.genesis.epoch);
        let key = field_key(DocumentId::settings_record(), PAYING_RELAY);
        Self {
            ledger: Ledger { relay: device, epoch },
            settings: shop.settings(),
            disputed: shop.field_conflicts().any(|(id, field)| *id == DocumentId::Settings && *field == key),
            loaded: shop.is_loaded(),
            met_others: shop.journals().any(|journal| journal.info.device() != device && journal.applied > 0),
        }
    }

    /// `shortcode` is the one that this relay has credentials for.
    pub(super) fn standing(&self, shortcode: Option<&str>) -> Standing {
        if self.disputed {
            return Standing::Disputed;
        }
        let Some(named) = self.settings.paying_ledger else { return Standing::Unclaimed };
        if named.relay != self.ledger.relay {
            return Standing::Storing { named };
        }
        if named.epoch != self.ledger.epoch {
            return Standing::Frozen { named };
        }
        match (&self.settings.paying_shortcode, shortcode) {
            (Some(named), Some(own)) if named != own => Standing::OtherShortcode,
            (Some(_) | None, Some(_) | None) => Standing::Paying,
        }
    }

    pub(super) fn names_providers(&self, names: &[String]) -> bool {
        self.settings.payment_providers == names
    }

    pub(super) fn limits(&self) -> PromiseLimits {
        self.settings.promises
    }

    pub(super) fn may_claim(&self) -> bool {
        self.loaded && !self.disputed && self.settings.paying_ledger.is_none()
    }
}

/// Names this relay as the one that pays. Two that do so at once make a conflict of the field,
/// and nobody pushes until a person decides.
pub(super) async fn claim(shop: &ShopHandle, ledger: Ledger, shortcode: Option<&str>) -> Result<(), Stopped> {
    let edits = Settings::name_paying_relay(ledger, shortcode);
    match shop.record(Operation { edits, ..Operation::default() }).await {
        Ok(_) => tracing::info!(epoch = ledger.epoch, ?shortcode, "this relay named itself as the paying one"),
        Err(RecordError::Stopped(stopped)) => return Err(stopped),
        Err(error) => {
            tracing::error!(%error, "this relay can't name itself as the paying one: name it in the settings")
        }
    }
    Ok(())
}

/// Tells the tills what can be asked beside M-PESA.
pub(super) async fn name_providers(shop: &ShopHandle, names: &[String]) -> Result<(), Stopped> {
    let edits = Settings::name_providers(names);
    match shop.record(Operation { edits, ..Operation::default() }).await {
        Ok(_) => tracing::info!(?names, "the settings name this relay's other providers"),
        Err(RecordError::Stopped(stopped)) => return Err(stopped),
        Err(error) => tracing::error!(%error, "this relay's other providers can't be named: tills can't choose them"),
    }
    Ok(())
}

pub(super) fn log(standing: &Standing) {
    match standing {
        Standing::Paying => tracing::info!("this relay asks customers to pay"),
        Standing::Unclaimed => tracing::info!("the settings name no paying relay: this one only stores"),
        Standing::Storing { named } => {
            tracing::info!(relay = %named.relay, epoch = named.epoch, "another relay is the paying one: this one only stores");
        }
        Standing::Frozen { named } => {
            tracing::error!(
                epoch = named.epoch,
                "the settings name an older epoch of this relay, as after a restore: on the owner's device, tillmesh payments move --to this relay"
            );
        }
        Standing::Disputed => {
            tracing::error!(
                "the settings name several paying relays: resolve the conflict; until then nobody is asked to pay"
            );
        }
        Standing::OtherShortcode => {
            tracing::error!(
                "the settings name another shortcode than the credentials file: make them equal; until then nobody is asked to pay"
            );
        }
    }
}
