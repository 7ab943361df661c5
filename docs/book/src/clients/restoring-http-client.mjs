// Restores groups, items and user of a @microsoft/signalr client after its connection was lost: the next negotiate request
// sends the token of the lost connection. Needs `Hub::restore_groups` at the app server. See docs/book/src/app/stateful-reconnect.md.
//
//   const http = new RestoringHttpClient(new signalR.DefaultHttpClient(signalR.NullLogger.instance));
//   const connection = new signalR.HubConnectionBuilder()
//     .withUrl("/chat", { httpClient: http }).withStatefulReconnect().withAutomaticReconnect().build();
//   http.watch(connection);

export class RestoringHttpClient {
  constructor(inner) {
    this.inner = inner;
  }

  // A token is used only if its connection was open, because an attempt may negotiate and then fail to connect.
  watch(connection) {
    const lost = () => (this.lost = this.token);
    connection.onreconnecting(lost);
    connection.onclose((error) => error && lost());
  }

  async send(request) {
    if (!/\/negotiate(\?|$)/.test(request.url)) return this.inner.send(request);
    const restore = this.lost ? `${request.url.includes("?") ? "&" : "?"}restore=${encodeURIComponent(this.lost)}` : "";
    const response = await this.inner.send({ ...request, url: request.url + restore });
    const answer = response.statusCode === 200 ? JSON.parse(response.content) : {};
    this.token = answer.connectionToken ?? answer.connectionId ?? this.token;
    return response;
  }

  getCookieString(url) {
    return this.inner.getCookieString(url);
  }
}
