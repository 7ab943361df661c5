//! Typed calls to clients: declares a trait with the client methods.

use super::client::{Client, ClientAnswer};
use super::receivers::Receivers;
use crate::encode::Arguments;
use crate::error::InvokeError;

/// Declares a trait of client methods, so that the compiler checks calls to them.
///
/// Each function becomes a method of all [`Receivers`](crate::Receivers) that sends a call, or with a result type, a
/// method of a single [`Client`](crate::Client) that invokes it and waits for the result. The string after `=` is the
/// name of the client method, by default that of the function.
///
/// ```
/// use trunkline::testing::TestServer;
/// use trunkline::{Context, Hub, HubError};
///
/// trunkline::client_interface! {
///     /// Methods of chat clients.
///     pub trait ChatClient {
///         /// Shows a message.
///         fn receive_message(user: &str, text: &str) = "ReceiveMessage";
///         fn left(user: Option<String>) = "Left";
///         /// Asks for permission to enter.
///         fn admit(user: &str) -> bool = "Admit";
///         fn ping();
///     }
/// }
///
/// async fn say(ctx: Context, text: String) -> Result<(), HubError> {
///     ctx.clients().all().receive_message("ann", &text).await?;
///     Ok(())
/// }
///
/// async fn knock(ctx: Context, owner: String) -> Result<bool, HubError> {
///     Ok(ctx.clients().client(owner).admit("bob").await?)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = TestServer::new(Hub::new("/chat").method("Say", say).method("Knock", knock))?;
/// let mut ann = server.connect("/chat").await?;
/// ann.send("Say", ("hello",)).await?;
/// let message: (String, String) = ann.expect("ReceiveMessage").await;
/// assert_eq!(message, ("ann".to_owned(), "hello".to_owned()));
/// # let mut bob = server.connect("/chat").await?;
/// # let owner = ann.connection_id().to_owned();
/// # let (admitted, ()) = tokio::join!(bob.invoke::<bool>("Knock", (owner,)), async {
/// #     let question = ann.next().await.unwrap();
/// #     assert_eq!((question.target(), question.arguments()), ("Admit", Ok(("bob".to_owned(),))));
/// #     ann.answer(&question, true).await.unwrap();
/// # });
/// # assert_eq!(admitted, Ok(true));
/// # let all = server.handle().hub("chat")?.clients().all();
/// # all.ping().await?;
/// # all.left(None).await?;
/// # let () = ann.expect("ping").await;
/// # let (nobody,): (Option<String>,) = ann.expect("Left").await;
/// # assert_eq!(nobody, None);
/// # Ok(()) }
/// ```
///
/// With the feature `typescript`, `trait ChatClient: TypeScript` also generates TypeScript types of the interface:
/// see the module `typescript`.
#[macro_export]
macro_rules! client_interface {
    (
        $(#[$meta:meta])*
        $visibility:vis trait $interface:ident: TypeScript {
            $(
                $(#[$method_meta:meta])*
                fn $method:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $(= $name:literal)?;
            )*
        }
    ) => {
        $(#[$meta])*
        $visibility trait $interface: $crate::interface::Target {
            $($crate::client_interface! {
                @method [$(#[$method_meta])*] $method [$($argument: $type),*] [$($result)?] [$($name)?]
            })*

            /// TypeScript types of the interface, for [`TypeScript::client`]($crate::typescript::TypeScript::client).
            fn typescript(
                declarations: &mut $crate::typescript::Declarations,
            ) -> ::std::vec::Vec<$crate::typescript::ClientMethod>
            where
                Self: Sized,
            {
                ::std::vec![$($crate::client_interface! {
                    @typed declarations $method [$($argument: $type),*] [$($result)?] [$($name)?]
                }),*]
            }
        }

        impl<T: $crate::interface::Target> $interface for T {}
    };
    (
        $(#[$meta:meta])*
        $visibility:vis trait $interface:ident {
            $(
                $(#[$method_meta:meta])*
                fn $method:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $(= $name:literal)?;
            )*
        }
    ) => {
        $(#[$meta])*
        $visibility trait $interface: $crate::interface::Target {
            $($crate::client_interface! {
                @method [$(#[$method_meta])*] $method [$($argument: $type),*] [$($result)?] [$($name)?]
            })*
        }

        impl<T: $crate::interface::Target> $interface for T {}
    };
    (@method [$($meta:tt)*] $method:ident [$($argument:ident: $type:ty),*] [] [$($name:literal)?]) => {
        $($meta)*
        fn $method(
            &self,
            $($argument: $type),*
        ) -> impl ::core::future::Future<Output = ::core::result::Result<$crate::Sent, $crate::SendError>> + Send {
            async move {
                let name = $crate::client_interface!(@name $method [$($name)?]);
                $crate::interface::Target::receivers(self).send(name, ($($argument,)*)).await
            }
        }
    };
    (@method [$($meta:tt)*] $method:ident [$($argument:ident: $type:ty),*] [$result:ty] [$($name:literal)?]) => {
        $($meta)*
        fn $method(
            &self,
            $($argument: $type),*
        ) -> impl ::core::future::Future<Output = ::core::result::Result<$result, $crate::InvokeError>> + Send
        where
            Self: $crate::interface::Askable,
        {
            async move {
                let name = $crate::client_interface!(@name $method [$($name)?]);
                $crate::interface::Askable::client(self).invoke(name, ($($argument,)*)).await
            }
        }
    };
    (@typed $types:ident $method:ident [$($argument:ident: $type:ty),*] [] [$($name:literal)?]) => {
        $crate::typescript::ClientMethod::called(
            $crate::client_interface!(@name $method [$($name)?]),
            ::std::vec![$((::core::stringify!($argument), $types.argument_of::<$type>())),*],
        )
    };
    (@typed $types:ident $method:ident [$($argument:ident: $type:ty),*] [$result:ty] [$($name:literal)?]) => {
        $crate::typescript::ClientMethod::asked(
            $crate::client_interface!(@name $method [$($name)?]),
            ::std::vec![$((::core::stringify!($argument), $types.argument_of::<$type>())),*],
            $types.name_of::<$result>(),
        )
    };
    (@name $method:ident []) => { ::core::stringify!($method) };
    (@name $method:ident [$name:literal]) => { $name };
}

/// Receivers of typed calls. Implementation detail of [`client_interface!`](macro@crate::client_interface).
pub trait Target: sealed::SealedReceivers + Send + Sync {
    /// Receivers of the call.
    fn receivers(&self) -> &Receivers;
}

/// A client that can be invoked for a result. Implementation detail of
/// [`client_interface!`](macro@crate::client_interface).
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be invoked for a result",
    label = "only a single client can return a result",
    note = "choose a client by `clients().client(connection_id)`, or declare the function without a result to send it \
            to many clients"
)]
pub trait Askable: Target {
    /// The client to invoke.
    fn client(&self) -> &Client;
}

impl Receivers {
    /// Fails to compile, so that the compiler explains how to select a single client, instead of reporting "no method
    /// named `invoke`".
    #[doc(hidden)]
    pub async fn invoke<T: ClientAnswer>(&self, method: &str, arguments: impl Arguments) -> Result<T, InvokeError>
    where
        for<'a> &'a Self: Askable,
    {
        (&self).client().invoke(method, arguments).await
    }
}

mod sealed {
    pub trait SealedReceivers {}
    impl SealedReceivers for super::Receivers {}
    impl SealedReceivers for super::Client {}
}

impl Target for Receivers {
    fn receivers(&self) -> &Receivers {
        self
    }
}

impl Target for Client {
    fn receivers(&self) -> &Receivers {
        self
    }
}

#[diagnostic::do_not_recommend]
impl Askable for Client {
    fn client(&self) -> &Client {
        self
    }
}
