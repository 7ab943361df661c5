//! All processes of the demo: started in order, watched, and stopped in reverse order.

use std::future::poll_fn;
use std::task::Poll;

use anyhow::anyhow;

use crate::build::Programs;
use crate::plan::Plan;
use crate::process::{Process, print_line};
use crate::readiness::until_ready;
use crate::signals::received_again;
use crate::traffic;

/// Running processes: the app server first, then the proxies.
#[derive(Debug, Default)]
pub(crate) struct Fleet(Vec<Process>);

impl Fleet {
    /// Starts all processes, prints what to open, and returns when something fails. If cancelled, started processes
    /// keep running and have to be stopped.
    pub(crate) async fn run(&mut self, plan: &Plan, programs: &Programs) -> anyhow::Error {
        if let Err(error) = self.start(plan, programs).await {
            return error;
        }
        print_line(&plan.invitation());
        if !plan.has_traffic {
            return self.first_end().await;
        }
        tokio::select! {
            error = self.first_end() => error,
            never = traffic::run(plan) => match never {},
        }
    }

    /// Stops all processes, gracefully unless a second signal arrives. No process remains afterwards.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let outcome = tokio::select! {
            outcome = self.end_fleet() => outcome,
            () = received_again() => Err(anyhow!("second stop signal: stopped immediately")),
        };
        for process in &mut self.0 {
            process.kill().await;
        }
        outcome
    }

    /// Stops the proxies first, so that they close their clients, then the app server.
    async fn end_fleet(&mut self) -> anyhow::Result<()> {
        let apps = self.0.len().min(1);
        let (app, proxies) = self.0.split_at_mut(apps);
        let mut outcome = Ok(());
        for together in [proxies, app] {
            together.iter_mut().for_each(Process::ask_to_end);
            for process in together {
                outcome = outcome.and(process.end_process().await);
            }
        }
        outcome
    }

    async fn start(&mut self, plan: &Plan, programs: &Programs) -> anyhow::Result<()> {
        // Any order works, but this one avoids log lines about waiting.
        self.add_process("app", &programs.app, &plan.app_arguments())?;
        self.unless_one_ends(until_ready("the app server", plan.listen, "/readyz")).await?;
        for proxy in &plan.proxies {
            self.add_process(&proxy.name, &programs.proxy, &plan.proxy_arguments(proxy))?;
        }
        for proxy in &plan.proxies {
            self.unless_one_ends(until_ready(&proxy.name, proxy.admin, "/readyz")).await?;
        }
        Ok(())
    }

    fn add_process(&mut self, name: &str, program: &std::path::Path, arguments: &[String]) -> anyhow::Result<()> {
        let process = Process::start(name, self.0.len(), program, arguments)?;
        self.0.push(process);
        Ok(())
    }

    async fn unless_one_ends(&mut self, step: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        tokio::select! {
            // Another program may answer in place of an ended process.
            biased;
            error = self.first_end() => Err(error),
            outcome = step => outcome,
        }
    }

    /// Waits until a process ends, and returns the error to report. Cancel-safe: an unreported end is found again.
    async fn first_end(&mut self) -> anyhow::Error {
        let index = poll_fn(|cx| {
            let ended = self.0.iter_mut().position(|process| process.poll_end(cx).is_ready());
            ended.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        match self.0.get_mut(index) {
            Some(process) => process.unexpected_end().await,
            None => anyhow!("there is nothing to run"),
        }
    }
}
