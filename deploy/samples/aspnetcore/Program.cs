// A chat with rooms. Nothing in it is about Trunkline: the connection string decides where its clients go.
using Microsoft.AspNetCore.SignalR;
using Microsoft.Azure.SignalR;

var builder = WebApplication.CreateBuilder(args);
var signalR = builder.Services.AddSignalR();
if (builder.Configuration["Azure:SignalR:ConnectionString"] is not null)
{
    // Without a connection string the app serves its clients itself.
    signalR.AddAzureSignalR(options => options.GracefulShutdown.Mode = GracefulShutdownMode.MigrateClients);
}

var app = builder.Build();
app.UseDefaultFiles();
app.UseStaticFiles();
app.MapHub<Chat>("/chat");
app.Run();

public class Chat : Hub
{
    public async Task Join(string room)
    {
        await Groups.AddToGroupAsync(Context.ConnectionId, room);
        await Clients.OthersInGroup(room).SendAsync("Joined", Context.ConnectionId);
    }

    public Task Say(string room, string text) => Clients.Group(room).SendAsync("Said", Context.ConnectionId, text);
}
