// Follows a recorded group: calls `show` for each message, and `reset` if earlier messages may be missing. The position
// is kept in the tab, so a reloaded page goes on where it was.
export function follow(connection, group, show, reset) {
  const begin = () => {
    const after = sessionStorage.getItem(group) ?? "0"; // "0": all that is kept
    connection.stream("Follow", { group, after }).subscribe({
      next(item) {
        if (item.reset) return reset(item.reset);
        sessionStorage.setItem(group, item.position);
        show(item.target, item.arguments);
      },
      complete: () => console.log(`${group} is finished`),
      error(error) {
        console.warn(`${group}: ${error.message}`);
        if (error.message.includes("try again")) setTimeout(begin, 1000);
      },
    });
  };
  connection.onreconnected(begin);
  begin();
}
