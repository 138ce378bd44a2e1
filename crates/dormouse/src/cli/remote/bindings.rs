//! Managed bindings of a server.

use reqwest::Method;
use serde::Deserialize;
use server::{BindingDocument, BindingFields, CheckedDocument, CreatedCredential, NewCredential};

use super::{Remote, encoded};
use crate::cli::failure::Failure;

#[derive(Deserialize)]
struct Bindings {
    bindings: Vec<BindingDocument>,
}

impl Remote {
    pub(crate) async fn bindings(&self) -> Result<Vec<BindingDocument>, Failure> {
        let list: Bindings = self.document(self.at(Method::GET, "/v1/bindings")).await?;
        Ok(list.bindings)
    }

    pub(crate) async fn binding(&self, id: &str) -> Result<BindingDocument, Failure> {
        self.document(self.at(Method::GET, &path(id, ""))).await
    }

    pub(crate) async fn create_binding(
        &self,
        fields: &BindingFields,
    ) -> Result<BindingDocument, Failure> {
        let request = self.at(Method::POST, "/v1/bindings");
        self.document(request.json(fields)).await
    }

    pub(crate) async fn change_binding(
        &self,
        id: &str,
        fields: &BindingFields,
    ) -> Result<BindingDocument, Failure> {
        let request = self.at(Method::PATCH, &path(id, ""));
        self.document(request.json(fields)).await
    }

    pub(crate) async fn delete_binding(&self, id: &str) -> Result<(), Failure> {
        let request = self.at(Method::DELETE, &path(id, ""));
        self.send(request).await.map(drop)
    }

    pub(crate) async fn check_binding(&self, id: &str) -> Result<CheckedDocument, Failure> {
        self.document(self.at(Method::POST, &path(id, "/check")))
            .await
    }

    pub(crate) async fn restart_binding(&self, id: &str) -> Result<(), Failure> {
        let request = self.at(Method::POST, &path(id, "/restart"));
        self.send(request).await.map(drop)
    }

    pub(crate) async fn create_credential(
        &self,
        id: &str,
        new: &NewCredential,
    ) -> Result<CreatedCredential, Failure> {
        let request = self.at(Method::POST, &path(id, "/credentials"));
        self.document(request.json(new)).await
    }

    pub(crate) async fn revoke_credential(&self, id: &str, user: &str) -> Result<(), Failure> {
        let rest = format!("/credentials/{}", encoded(user));
        let request = self.at(Method::DELETE, &path(id, &rest));
        self.send(request).await.map(drop)
    }
}

fn path(id: &str, rest: &str) -> String {
    format!("/v1/bindings/{}{rest}", encoded(id))
}
