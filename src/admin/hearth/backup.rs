//! A whole backup over the admin socket.

use hyper::StatusCode;

use crate::admin::backups::BackupError;
use crate::admin::problem::{ApiError, Code};
use crate::admin::{ApiCall, ApiResult};
use crate::net::body;

/// Media type of an archive. Source: RFC 8878, section 7.1.
const ZSTD: &str = "application/zstd";

impl ApiCall<'_> {
    pub(crate) async fn backup(&self) -> ApiResult {
        let archive = self.admin.backups.whole(self.now.wall).await;
        let archive = archive.map_err(|fault| match fault {
            BackupError::Engine(fault) => fault.into(),
            BackupError::Busy | BackupError::Stopped => {
                ApiError::new(Code::Unavailable, fault.to_string())
            }
            BackupError::Io(_) => ApiError::new(Code::Internal, fault.to_string()),
        })?;
        let bytes = archive.len();
        tracing::info!(by = %self.principal, bytes, "backup made");
        Ok(body::typed(StatusCode::OK, ZSTD, archive))
    }
}
