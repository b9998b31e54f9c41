//! Preauth keys and API keys.

use std::time::Duration;

use crate::admin::problem::{ApiError, Code};
use crate::admin::v1::{convert, users};
use crate::admin::{ApiCall, ApiResult, json};
use crate::api::{
    ApiKeysAnswer, CreateApiKey, CreatePreAuthKey, EmptyAnswer, NameKey, NewApiKeyAnswer,
    PreAuthKey, PreAuthKeyAnswer, PreAuthKeysAnswer,
};
use hearth_core::id::{ApiKeyId, PreAuthKeyId, UserId};
use hearth_core::state::command::{NewApiKey, NewPreAuthKey, Rejected};
use hearth_core::state::scope::{Scopes, UnknownScope};
use hearth_core::state::secret::{NewSecret, SecretHash, SecretKind, new_secret, split};

/// Default lifetime of a preauth key. Source: `DefaultPreAuthKeyExpiry` in headscale
/// `cmd/headscale/cli/preauthkeys.go`.
const PREAUTH_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Default lifetime of an API key. Source: `DefaultAPIKeyExpiry` in headscale
/// `cmd/headscale/cli/api_key.go`.
const API_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);

impl ApiCall<'_> {
    pub(crate) async fn create_preauth_key(&self) -> ApiResult {
        let request: CreatePreAuthKey = self.read()?;
        let user = match request.user.0.as_str() {
            "" | "0" => None,
            id => Some(
                id.parse::<UserId>()
                    .map_err(|_| ApiError::invalid("invalid user id"))?,
            ),
        };
        let expiration = request.expiration.as_deref();
        let expiry = convert::expiry(expiration, PREAUTH_LIFETIME, self.now)?;
        let tags = request.acl_tags.into_iter().map(Into::into).collect();
        let key = self
            .make_preauth_key(|prefix, hash| NewPreAuthKey {
                user,
                tags,
                reusable: request.reusable,
                ephemeral: request.ephemeral,
                preauthorized: request.preauthorized.unwrap_or(true),
                expiry,
                prefix,
                hash,
            })
            .await?;
        json(&PreAuthKeyAnswer { pre_auth_key: key })
    }

    /// Creates a key and returns it with its full text.
    pub(in crate::admin) async fn make_preauth_key(
        &self,
        with_secret: impl FnOnce(Box<str>, SecretHash) -> NewPreAuthKey,
    ) -> Result<PreAuthKey, ApiError> {
        let secret = fresh(SecretKind::PreAuth)?;
        let new = with_secret(secret.prefix, secret.hash);
        let engine = &self.admin.engine;
        let made = engine.create_preauth_key(self.by(), new).await?;
        Ok(PreAuthKey {
            key: secret.text.to_string(),
            ..convert::preauth_key(&made.value, &made.snapshot)
        })
    }

    pub(crate) fn list_preauth_keys(&self) -> ApiResult {
        let snapshot = self.admin.engine.snapshot();
        // Interfaces for Headscale up to 0.27 ask once for each user.
        let owner = match self.query("user") {
            "" => None,
            who => Some(users::find(&snapshot, who)?),
        };
        let keys = snapshot.preauth_keys().values();
        let keys = keys.filter(|key| owner.is_none() || key.user == owner);
        let keys = keys.map(|key| convert::preauth_key(key, &snapshot));
        json(&PreAuthKeysAnswer {
            pre_auth_keys: keys.collect(),
        })
    }

    pub(crate) async fn expire_preauth_key(&self) -> ApiResult {
        let id = self.preauth_key_named(&self.read()?)?;
        self.admin.engine.expire_preauth_key(self.by(), id).await?;
        json(&EmptyAnswer {})
    }

    pub(crate) async fn delete_preauth_key(&self) -> ApiResult {
        let id = self.preauth_key_named(&self.read()?)?;
        self.admin.engine.delete_preauth_key(self.by(), id).await?;
        json(&EmptyAnswer {})
    }

    pub(crate) async fn create_api_key(&self) -> ApiResult {
        let request: CreateApiKey = self.read()?;
        let scopes = self.scopes_of(request.scopes.as_deref())?;
        let secret = fresh(SecretKind::Api)?;
        let new = NewApiKey {
            scopes,
            expiry: convert::expiry(request.expiration.as_deref(), API_LIFETIME, self.now)?,
            prefix: secret.prefix,
            hash: secret.hash,
        };
        self.admin.engine.create_api_key(self.by(), new).await?;
        json(&NewApiKeyAnswer {
            api_key: secret.text.to_string(),
        })
    }

    /// Scopes by name; all if there is no list. Nobody gives a key more than they have themselves.
    fn scopes_of(&self, names: Option<&[String]>) -> Result<Scopes, ApiError> {
        if names.is_some_and(<[String]>::is_empty) {
            let message = "`scopes` is empty; name some, or leave it out for all";
            return Err(ApiError::invalid(message));
        }
        let names = names.unwrap_or_default();
        let mut scopes = Scopes::NONE;
        for name in names {
            let scope = name.parse();
            scopes = scopes
                .with(scope.map_err(|fault: UnknownScope| ApiError::invalid(&fault.to_string()))?);
        }
        if names.is_empty() {
            scopes = Scopes::ALL;
        }
        if !self.principal.scopes().include(scopes) {
            let message = "a key cannot have scopes that its maker lacks; name them with `scopes`";
            return Err(ApiError::new(Code::PermissionDenied, message));
        }
        Ok(scopes)
    }

    pub(crate) fn list_api_keys(&self) -> ApiResult {
        let snapshot = self.admin.engine.snapshot();
        let keys = snapshot.api_keys().values();
        json(&ApiKeysAnswer {
            api_keys: keys.map(|key| convert::api_key(key)).collect(),
        })
    }

    pub(crate) async fn expire_api_key(&self) -> ApiResult {
        let named: NameKey = self.read()?;
        let id = self.api_key_named(&named.id.0, &named.prefix)?;
        self.admin.engine.expire_api_key(self.by(), id).await?;
        json(&EmptyAnswer {})
    }

    pub(crate) async fn delete_api_key(&self, prefix: &str) -> ApiResult {
        let named: NameKey = self.read()?;
        let id = self.api_key_named(&named.id.0, prefix)?;
        self.admin.engine.delete_api_key(self.by(), id).await?;
        json(&EmptyAnswer {})
    }

    /// The preauth key with this ID or, as up to Headscale 0.27, with this text.
    fn preauth_key_named(&self, named: &NameKey) -> Result<PreAuthKeyId, ApiError> {
        if named.key.is_empty() {
            let id = named.id.0.parse();
            return id.map_err(|_| ApiError::invalid("invalid pre-auth key id"));
        }
        if !named.id.is_empty() {
            return Err(ApiError::invalid("provide either id or key, not both"));
        }
        let snapshot = self.admin.engine.snapshot();
        let mut keys = snapshot.preauth_keys().values();
        // A masked key has the same form.
        let prefix = split(SecretKind::PreAuth, &named.key).map(|(prefix, _)| prefix);
        let key = keys.find(|key| Some(&*key.prefix) == prefix);
        key.map(|key| key.id).ok_or(Rejected::NoSuchKey.into())
    }

    fn api_key_named(&self, id: &str, prefix: &str) -> Result<ApiKeyId, ApiError> {
        match (id, convert::unmasked(prefix)) {
            ("" | "0", "") => Err(ApiError::invalid("must provide id or prefix")),
            ("" | "0", prefix) => {
                let snapshot = self.admin.engine.snapshot();
                let mut keys = snapshot.api_keys().values();
                let key = keys.find(|key| &*key.prefix == prefix);
                key.map(|key| key.id).ok_or(Rejected::NoSuchKey.into())
            }
            (id, "") => id
                .parse()
                .map_err(|_| ApiError::invalid("invalid api key id")),
            _ => Err(ApiError::invalid("provide either id or prefix, not both")),
        }
    }
}

fn fresh(kind: SecretKind) -> Result<NewSecret, ApiError> {
    new_secret(kind).map_err(|fault| ApiError::new(Code::Unavailable, fault.to_string()))
}
