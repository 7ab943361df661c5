//! Typed calls to clients: declares a trait with the client methods.

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
